//! A DPE that takes no calls, as a process.

use std::fs;
use std::path::Path;

use super::free_port::free_port;
use super::modules::{ANY_PORT, Running, paired_with};

/// Returns how many ports the process `pid` listens on.
fn listeners_of(pid: u32) -> usize {
    let process = Path::new("/proc").join(pid.to_string());
    let open = fs::read_dir(process.join("fd")).unwrap();
    let links = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let sockets: Vec<_> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            Some(inode.strip_suffix(']')?.to_owned())
        })
        .collect();
    let tables = ["net/tcp", "net/tcp6"].map(|table| process.join(table));
    let rows = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let listening = rows.iter().flat_map(|rows| rows.lines()).filter(|row| {
        let columns: Vec<_> = row.split_whitespace().collect();
        columns.get(3) == Some(&"0A") && sockets.iter().any(|own| columns.get(9) == Some(&&**own))
    });
    listening.count()
}

#[test]
fn one_way_dpe_opens_no_grpc_port_and_is_ready() {
    let dpe = "countersign.dpe.one-way=true\nataccama.one.dpe.service.hostname=dpe.example\n";
    let folder = paired_with(&[("dpe/etc/application.properties", dpe)]);
    folder.run("check dpm dpe --notes").exits(0);
    let refused = folder.run("dpm run --home dpm --set countersign.dpe.one-way=true");
    let why = "`countersign.dpe.one-way` is for a DPE";
    assert!(refused.exits(3).stderr.contains(why));
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let at_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");

    let run = format!("dpe run --home dpe --set server.port=0 {at_dpm}");
    let mut dpe = Running::start(&folder, &run);

    let started = dpe.until(" startup ");
    assert!(!started.contains(" address="), "{started}");
    assert!(started.contains("dpe.example (one-way)"), "{started}");
    let itself = format!("--home dpm --set ataccama.server.grpc.port={port}");
    folder
        .run(&format!("engines wait dpe-dev {itself}"))
        .exits(0);
    assert_eq!(listeners_of(dpe.child.id()), 1, "HTTP alone");
    let listed = folder.run(&format!("engines list {itself}")).exits(0);
    assert!(
        listed.stdout.contains("dpe.example (one-way)  READY"),
        "{}",
        listed.stdout
    );
    for doctor in [itself, format!("--home dpe {at_dpm}")] {
        let healthy = folder.run(&format!("doctor {doctor}")).exits(0);
        let way = "← dpe.example (one-way), READY";
        assert!(healthy.stdout.contains(way), "{}", healthy.stdout);
    }
    dpe.stop();
    let left = folder.run(&format!("engines list --home dpe {at_dpm}"));
    let list = left.exits(0).stdout;
    assert!(list.contains("INACTIVE"), "{list}");
}

#[test]
fn old_key_stays_while_a_one_way_engine_signs_with_it() {
    let port = free_port();
    // No longer than this is waited for the last token of the old key.
    let short = "ataccama.authentication.internal.jwt.generator.token-expiration=2\n\
                 countersign.token.max-lifetime=2\ncountersign.token.leeway=1s\nserver.port=0\n";
    let dpm = format!("{short}ataccama.server.grpc.port={port}\n");
    let dpe = format!(
        "{short}countersign.dpe.one-way=true\n\
         ataccama.client.connection.dpm.grpc.port={port}\n"
    );
    let files = ["dpm", "dpe"].map(|home| format!("{home}/etc/application.properties"));
    let folder = paired_with(&[(&files[0], &dpm), (&files[1], &dpe)]);
    let mut dpm = Running::start(&folder, "dpm run --home dpm");
    let run = "dpe run --home dpe";
    let mut dpe = Running::start_with(&folder, run, [("COUNTERSIGN_RELOAD", "false")]);
    dpm.until("newStatus=READY");
    let rotate = |step: &str, more: &str| {
        folder.run(&format!(
            "rotate {step} --home dpe --peer-file dpm --yes {more}"
        ))
    };
    rotate("prepare", "").exits(0);
    rotate("activate", "").exits(0);

    let waited = rotate("run", "--timeout 1").exits(1);

    let expected = "the running module still signs with its old key: the one-way engine, as the \
                    DPM at localhost:";
    assert!(waited.stderr.contains(expected), "{waited:?}");
    // An engine that was stopped, or that follows its file, holds nothing up.
    dpe.stop();
    let mut dpe = Running::start(&folder, run);
    dpe.until("Engine registered");
    rotate("run", "").exits(0);
}
