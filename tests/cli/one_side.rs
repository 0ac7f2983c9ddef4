//! Two machines, each with its own file: `pair --one-side`, `rotate prepare --one-side`,
//! `pair accept`.

#[cfg(target_os = "linux")]
use std::io::Write as _;

#[cfg(unix)]
use super::modules::{ANY_PORT, Running};
use super::support::{Folder, Run};

const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";

/// Returns the words that a run said.
#[track_caller]
fn words(run: &Run) -> String {
    let line = run
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("words   "));
    line.unwrap_or_else(|| panic!("{run:?}")).replace(' ', "-")
}

fn own_key(folder: &Folder, file: &str) -> String {
    let text = folder.read(file);
    let key = text.lines().find_map(|line| line.strip_prefix(OWN_KEY));
    key.unwrap().to_owned()
}

/// Pairs `dpm.properties` of one machine with `dpe.properties` of another.
fn paired() -> [Folder; 2] {
    let (here, there) = (Folder::new(), Folder::new());
    let ours = here.run("pair --one-side dpm=dpm.properties").exits(0);
    let accept = format!("pair accept dpe=dpe.properties --words {}", words(&ours));
    let theirs = there.run_with(&accept, ours.stdout.as_bytes()).exits(0);
    let accept = format!("pair accept dpm=dpm.properties --words {}", words(&theirs));
    here.run_with(&accept, theirs.stdout.as_bytes()).exits(0);
    [here, there]
}

#[test]
fn two_machines_pair_without_seeing_each_others_file() {
    let [here, there] = paired();

    let both = Folder::new();
    both.write("dpm.properties", here.read("dpm.properties"));
    both.write("dpe.properties", there.read("dpe.properties"));
    both.run("check dpm.properties dpe.properties").exits(0);
    let pairing = "pair dpm=dpm.properties dpe=dpe.properties";
    assert!(
        both.run(pairing)
            .exits(0)
            .stdout
            .ends_with("nothing to do\n")
    );
    for folder in [&here, &there] {
        assert_eq!(folder.names("").len(), 1, "{:?}", folder.names(""));
    }
}

/// The hand-over of pins is what two machines need most: beyond loopback nothing is sent in clear.
#[cfg(unix)]
#[test]
fn two_machines_that_talk_tls_pin_each_other_and_reach_ready() {
    let (here, there) = (Folder::new(), Folder::new());
    let one_side = "pair --one-side dpm=dpm/etc/application.properties --tls";
    let ours = here.run(one_side).exits(0);
    let accept = format!(
        "pair accept dpe=dpe/etc/application.properties --words {}",
        words(&ours)
    );
    let theirs = there.run_with(&accept, ours.stdout.as_bytes()).exits(0);
    let accept = format!(
        "pair accept dpm=dpm/etc/application.properties --words {}",
        words(&theirs)
    );
    let done = here.run_with(&accept, theirs.stdout.as_bytes()).exits(0);
    let again = here.run_with(&accept, theirs.stdout.as_bytes()).exits(0);

    assert!(ours.stdout.contains("\ntls-fingerprint: "), "{ours:?}");
    assert!(ours.stderr.contains("dpm-dev-tls-key.pem"), "{ours:?}");
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
    assert_eq!(again.stdout, done.stdout);
    for shown in [&ours, &theirs, &done] {
        let shown = format!("{shown:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
    let both = [(&here, "dpm"), (&there, "dpe")];
    for (folder, module) in both {
        let etc = format!("{module}/etc");
        assert_eq!(folder.names(&etc).len(), 3, "{:?}", folder.names(&etc));
    }
    let mut dpm = Running::start(&here, &format!("dpm run --home dpm {ANY_PORT}"));
    let to_dpm = format!(
        "--set ataccama.client.connection.dpm.grpc.port={}",
        dpm.port()
    );
    let _dpe = Running::start(&there, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpm.until("newStatus=READY");
}

#[test]
fn a_second_time_changes_nothing_and_prints_the_same_block() {
    let folder = Folder::new();
    let first = folder.run("pair --one-side dpm=dpm.properties").exits(0);
    let text = folder.read("dpm.properties");

    let second = folder.run("pair --one-side dpm=dpm.properties").exits(0);

    assert_eq!(second.stdout, first.stdout);
    assert_eq!(folder.read("dpm.properties"), text);
    let shown = format!("{}{}", first.stdout, first.stderr);
    let key = own_key(&folder, "dpm.properties");
    assert!(!shown.contains(key.get(120..160).unwrap()), "{shown}");
    assert!(!first.stdout.contains("\"d\""), "{}", first.stdout);
}

#[test]
fn other_words_and_altered_blocks_are_refused_and_nothing_is_written() {
    let folder = Folder::new();
    let ours = folder.run("pair --one-side dpm=dpm.properties").exits(0);
    let other = folder.run("pair --one-side dpm=other.properties").exits(0);
    let accept = "pair accept dpe=dpe.properties";

    let mismatch = format!("{accept} --words {}", words(&ours));
    let mismatch = folder.run_with(&mismatch, other.stdout.as_bytes()).exits(1);
    let altered = ours.stdout.replace("role: IMPERSONATION", "role: ADMIN");
    let altered = folder
        .run_with(&format!("{accept} --yes"), altered.as_bytes())
        .exits(1);
    let escapes = ours.stdout.replace("dpm-dev", "\u{1b}[2Jdpm");
    let escapes = folder
        .run_with(&format!("{accept} --yes"), escapes.as_bytes())
        .exits(1);
    let unasked = folder.run_with(accept, ours.stdout.as_bytes()).exits(2);

    assert!(
        mismatch
            .stderr
            .contains("refused: the words of this block are different")
    );
    assert!(
        altered.stderr.contains("it was cut or altered on the way"),
        "{altered:?}"
    );
    assert!(!escapes.stderr.contains('\u{1b}'), "{escapes:?}");
    assert!(unasked.stderr.contains("--words"), "{unasked:?}");
    assert!(!folder.path("dpe.properties").exists());
}

#[test]
fn a_key_is_changed_across_two_machines() {
    let [here, there] = paired();
    let rotate = |step: &str| {
        let run = format!("rotate {step} --home dpm.properties --one-side --yes");
        here.run(&run)
    };

    let prepared = rotate("prepare").exits(0);
    let again = rotate("prepare").exits(0);
    assert_eq!(prepared.stdout, again.stdout);
    let unseen = rotate("activate").exits(1);
    assert!(
        unseen
            .stderr
            .contains("`dpe-dev` is not shown to accept the new key"),
        "{unseen:?}"
    );
    let next =
        "have its operator accept the block of `rotate prepare` with `countersign pair accept`";
    assert!(unseen.stderr.contains(next), "{unseen:?}");

    let whole = rotate("run").exits(2);
    let help = "run the steps one by one:\n  countersign rotate activate --home dpm.properties \
                --one-side\n";
    assert!(whole.stderr.ends_with(help), "{whole:?}");

    let accept = format!(
        "pair accept dpe=dpe.properties --words {}",
        words(&prepared)
    );
    there.run_with(&accept, prepared.stdout.as_bytes()).exits(0);
    let text = there.read("dpe.properties");
    there.run_with(&accept, prepared.stdout.as_bytes()).exits(0);
    assert_eq!(there.read("dpe.properties"), text);
    here.run("rotate activate --home dpm.properties --one-side --except dpe-dev --yes")
        .exits(0);
    let finished = here
        .run("rotate finish --home dpm.properties --one-side --now --yes")
        .exits(0);

    // It says what is to be done there, and how that is seen.
    let lines = finished.stderr.lines();
    let commands = lines.filter_map(|line| line.strip_prefix("  countersign "));
    let commands: Vec<_> = commands
        .map(|command| {
            command
                .replace(" . ", " dpe.properties ")
                .replace("--home .", "--home dpe.properties")
        })
        .collect();
    let [revoke, show] = commands.as_slice() else {
        panic!("{finished:?}");
    };
    assert!(revoke.contains(" --watch "), "{finished:?}");
    // Nothing runs there that would say `active`.
    there.run(&revoke.replace(" --watch", "")).exits(0);
    let shown = there.run(show).exits(0);
    assert!(finished.stderr.contains("says `revoked`"), "{finished:?}");
    assert!(shown.stdout.contains("  revoked\n"), "{shown:?}");
    let both = Folder::new();
    both.write("dpm.properties", here.read("dpm.properties"));
    both.write("dpe.properties", there.read("dpe.properties"));
    both.run("check dpm.properties dpe.properties").exits(0);
}

#[test]
fn a_key_of_a_module_without_a_name_is_not_handed_over() {
    let [here, _] = paired();
    let prepare = "rotate prepare --home dpm.properties --one-side --yes";
    let name = "countersign.deployment.name=dpm-dev\n";
    let nameless = here.read("dpm.properties").replace(name, "");
    here.write("dpm.properties", &nameless);

    let refused = here.run(prepare).exits(3);
    assert_eq!(here.read("dpm.properties"), nameless);
    here.write("dpm.properties", nameless + name);
    here.run(prepare).exits(0);
    let prepared = here.read("dpm.properties").replace(name, "");
    here.write("dpm.properties", prepared);
    let again = here.run(prepare).exits(3);

    for run in [refused, again] {
        let expected = "`dpm.properties` has no `countersign.deployment.name`";
        assert!(run.stderr.contains(expected), "{run:?}");
        let help = "the peers' name for this module: `countersign.deployment.name=NAME`";
        assert!(run.stderr.contains(help), "{run:?}");
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn a_stranger_cannot_hand_over_a_key_of_another_module() {
    let [_, there] = paired();
    let [stranger, _] = paired();
    let block = stranger
        .run("rotate prepare --home dpm.properties --one-side --yes")
        .exits(0);
    let before = there.read("dpe.properties");

    let accept = "pair accept dpe=dpe.properties --yes";
    let refused = there.run_with(accept, block.stdout.as_bytes()).exits(1);

    assert!(
        refused.stderr.contains("as a key of `dpm-dev`"),
        "{refused:?}"
    );
    assert_eq!(there.read("dpe.properties"), before);
}

#[test]
fn block_carries_the_address_and_accept_writes_the_other_half() {
    let (here, there) = (Folder::new(), Folder::new());
    let ours = here
        .run("pair --one-side dpm=dpm.properties --address dpm=dpm.example:9000")
        .exits(0);

    let accept = "pair accept dpe=dpe.properties --yes --address dpe=dpe.example";
    let theirs = there.run_with(accept, ours.stdout.as_bytes()).exits(0);
    let accept = "pair accept dpm=dpm.properties --yes";
    here.run_with(accept, theirs.stdout.as_bytes()).exits(0);

    assert!(ours.stdout.contains("\naddress: dpm.example:9000\n"));
    assert!(theirs.stdout.contains("\naddress: dpe.example:8532\n"));
    let (dpm, dpe) = (here.read("dpm.properties"), there.read("dpe.properties"));
    for (text, lines) in [
        (&dpm, "ataccama.server.grpc.port=9000\n"),
        (&dpm, "countersign.server.address=0.0.0.0\n"),
        (&dpe, "ataccama.client.connection.dpm.host=dpm.example\n"),
        (&dpe, "ataccama.client.connection.dpm.grpc.port=9000\n"),
        (&dpe, "ataccama.one.dpe.service.hostname=dpe.example\n"),
        (&dpe, "ataccama.server.grpc.tls.enabled=true\n"),
    ] {
        assert!(text.contains(lines), "{lines}: {text}");
    }
    let next = "next    there: countersign pair accept dpe=dpe/etc/application.properties --block \
                dpm.block --address 'dpe=<HOST>' > dpe.block\n        here: countersign pair accept \
                dpm=dpm.properties --block dpe.block\n        here: countersign dpm run --home";
    assert!(ours.stderr.contains(next), "{ours:#?}");
    assert!(ours.stderr.contains("TCP 9000 to dpm.example"), "{ours:#?}");
}

#[test]
fn block_for_one_host_says_so() {
    let ours = Folder::new()
        .run("pair --one-side dpm=dpm.properties")
        .exits(0);

    let note = "note    `dpm-dev` is for modules of this host: for others, add `--address`";
    assert!(ours.stderr.contains(note), "{ours:#?}");
}

#[test]
fn block_for_plaintext_beyond_a_host_is_accepted_only_with_plaintext() {
    let (here, there) = (Folder::new(), Folder::new());
    let ours = "pair --one-side dpm=dpm.properties --address dpm=dpm.example --plaintext";
    let ours = here.run(ours).exits(0);
    let accept = "pair accept dpe=dpe.properties --yes";

    let refused = there.run_with(accept, ours.stdout.as_bytes()).exits(1);
    assert!(refused.stderr.contains("without TLS"), "{refused:#?}");
    assert_eq!(there.names(""), [""; 0]);

    let accept = format!("{accept} --plaintext");
    there.run_with(&accept, ours.stdout.as_bytes()).exits(0);
    let text = there.read("dpe.properties");
    assert!(text.contains("countersign.client.allow-plaintext=true\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn address_is_asked_for_on_a_terminal() {
    for (answer, expected) in [("dpm.example:9000", true), ("", false)] {
        let folder = Folder::new();
        let line = format!(
            "{} pair --one-side dpm=dpm.properties > dpm.block",
            env!("CARGO_BIN_EXE_countersign")
        );
        // It has a terminal of its own.
        let mut terminal = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(folder.path(""))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut typed = terminal.stdin.take().unwrap();
        writeln!(typed, "{answer}").unwrap();
        let shown = terminal.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout);

        assert!(
            shown.contains("Where do other hosts reach the dpm?"),
            "{shown}"
        );
        let block = folder.read("dpm.block");
        assert_eq!(
            block.contains("address: dpm.example:9000"),
            expected,
            "{block}"
        );
        let file = folder.read("dpm.properties");
        assert_eq!(
            file.contains("countersign.server.address=0.0.0.0"),
            expected
        );
    }
}

#[test]
fn second_block_of_a_module_with_tls_has_its_pin() {
    let folder = Folder::new();
    let one_side = "pair --one-side dpm=dpm.properties";
    folder
        .run(&format!("{one_side} --address dpm=dpm.example"))
        .exits(0);

    let again = folder.run(one_side).exits(0);

    assert!(again.stdout.contains("\ntls-fingerprint: "), "{again:#?}");
}

#[test]
fn block_without_tls_is_refused_where_tls_is_on() {
    let (here, there) = (Folder::new(), Folder::new());
    let theirs = there.run("pair --one-side dpe=dpe.properties").exits(0);
    here.run("pair --one-side dpm=dpm.properties --tls")
        .exits(0);
    let text = here.read("dpm.properties");

    let accept = "pair accept dpm=dpm.properties --yes";
    let refused = here.run_with(accept, theirs.stdout.as_bytes()).exits(1);

    assert!(
        refused.stderr.contains("this file has TLS on"),
        "{refused:#?}"
    );
    assert_eq!(here.read("dpm.properties"), text);
}

#[test]
fn two_hosts_in_plaintext_turn_tls_on_by_the_same_commands() {
    let [here, there] = paired();
    let text = there.read("dpe.properties");

    let ours = "pair --one-side dpm=dpm.properties --address dpm=dpm.example --yes";
    let ours = here.run(ours).exits(0);
    let accept = "pair accept dpe=dpe.properties --address dpe=dpe.example";
    let unasked = format!("{accept} --words {}", words(&ours));
    let theirs = format!("{accept} --yes");
    let theirs = there.run_with(&theirs, ours.stdout.as_bytes()).exits(0);
    let accept = "pair accept dpm=dpm.properties --yes";
    here.run_with(accept, theirs.stdout.as_bytes()).exits(0);

    let both = Folder::new();
    both.write("dpm.properties", here.read("dpm.properties"));
    both.write("dpe.properties", there.read("dpe.properties"));
    for (folder, file) in [(&here, "dpm-dev"), (&there, "dpe-dev")] {
        for end in ["tls.pem", "tls-key.pem"] {
            let pem = format!("{file}-{end}");
            both.write(&pem, folder.read(&pem));
        }
    }
    both.run("check dpm.properties dpe.properties").exits(0);
    // A value that differs is a change, which words alone do not confirm.
    let other = text + "ataccama.client.connection.dpm.host=other.example\n";
    there.write("dpe.properties", &other);
    there.run_with(&unasked, ours.stdout.as_bytes()).exits(2);
    assert_eq!(there.read("dpe.properties"), other);
}
