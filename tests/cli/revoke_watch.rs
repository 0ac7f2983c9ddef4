//! `countersign revoke --watch`.

use super::free_port::free_port;
use super::modules::{Running, paired_with};
use super::revoke::{DPM, with_placeholders};
use super::support::Folder;

/// Two modules that are paired, and a DPM that listens on `port`.
fn paired_at(port: u16, more: &str) -> Folder {
    let settings = format!("ataccama.server.grpc.port={port}\nserver.port=0\n{more}");
    paired_with(&[(DPM, &settings)])
}

#[test]
fn watch_waits_until_the_running_module_confirms() {
    let port = free_port();
    let folder = paired_at(port, "");
    let start = |more: &str| {
        let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {more}"));
        dpm.until(" startup ");
        dpm
    };
    let revoke = |more: &str| folder.run(&format!("revoke --home dpm --deployment dpe-dev {more}"));

    let stopped = revoke("--yes --watch --timeout 0").exits(1);
    let undo = "revoke --undo --home dpm --deployment dpe-dev --yes";
    folder.run(undo).exits(0);
    let deaf = start("--set countersign.reload=false");
    let unheard = revoke("--yes --watch --timeout 1").exits(1);
    drop(deaf);
    folder.run(undo).exits(0);
    let _dpm = start("");
    let confirmed = revoke("--yes --watch").exits(0);

    assert!(
        stopped
            .stderr
            .contains("written, but NOT active: 127.0.0.1:"),
        "{stopped:?}"
    );
    assert!(
        unheard.stderr.contains("still accepts the key"),
        "{unheard:?}"
    );
    let expected = format!("active, asked at 127.0.0.1:{port}\n");
    assert!(confirmed.stderr.ends_with(&expected), "{confirmed:?}");
}

#[test]
fn watch_asks_also_a_module_whose_file_takes_no_reload() {
    let folder = paired_at(free_port(), "countersign.reload=false\n");
    let mut dpm = Running::start(&folder, "dpm run --home dpm");
    dpm.until(" startup ");
    let revoke = |more: &str| folder.run(&format!("revoke --home dpm --deployment dpe-dev {more}"));

    let waiting = revoke("--yes --watch --timeout 0").exits(1);
    dpm.signal("-HUP");
    let confirmed = revoke("--watch -o json").exits(0);

    let expected = format!("`{DPM}` says `countersign.reload=false`: a module");
    assert!(waiting.stderr.contains(&expected), "{waiting:?}");
    assert!(
        waiting.stderr.contains("still accepts the key"),
        "{waiting:?}"
    );
    assert_eq!(confirmed.json()["in_force"], true);
}

#[test]
fn watch_asks_for_the_key_that_placeholders_stand_for() {
    let port = free_port();
    let folder = paired_at(port, "");
    let [name, computed] = with_placeholders(&folder);
    let mut dpm = Running::start(&folder, "dpm run --home dpm --set countersign.reload=false");
    dpm.until(" startup ");
    let revoke = |more: &str| folder.run(&format!("revoke --home dpm --deployment dpe-dev {more}"));

    let unheard = revoke("--yes --watch --timeout 0").exits(1);
    // A key is the same, whatever the file calls it by now.
    folder.write(DPM, folder.read(DPM).replace(&name, &computed));
    let renamed = revoke("--key key --watch --timeout 0").exits(1);
    dpm.signal("-HUP");
    let confirmed = revoke("--watch").exits(0);

    for run in [unheard, renamed] {
        assert!(run.stderr.contains("still accepts the key"), "{run:?}");
    }
    let expected = format!("active, asked at 127.0.0.1:{port}\n");
    assert!(confirmed.stderr.ends_with(&expected), "{confirmed:?}");
}

#[test]
fn watch_takes_no_longer_than_its_timeout_where_nothing_answers() {
    // Nothing accepts: the system completes the connection, and nothing answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = paired_at(deaf.local_addr().unwrap().port(), "");
    let start = tokio::time::Instant::now();

    let run = folder
        .run("revoke --home dpm --deployment dpe-dev --yes --watch --timeout 2")
        .exits(1);

    // Without a limit of its own a question takes 5 s.
    assert!(start.elapsed().as_secs() < 4, "{run:?}");
    assert!(run.stderr.contains("did not answer in time"), "{run:?}");
}
