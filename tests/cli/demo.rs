//! `countersign demo`, when something is in its way.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::support::{Folder, command};

/// Starts a demo whose temporary files go to `tmp`, and returns once its DPM runs.
fn with_running_dpm(folder: &Folder, arguments: &[&str]) -> Child {
    fs::create_dir(folder.path("tmp")).unwrap();
    let mut demo = command(&folder.path(""));
    demo.arg("demo").args(arguments);
    let mut demo = demo.env("TMPDIR", folder.path("tmp")).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(" listens on ")));
    demo
}

fn signal(demo: &Child, name: &str) {
    let id = demo.id().to_string();
    let sent = std::process::Command::new("kill")
        .args([name, &id])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until no process holds the storage of `home`.
fn until_free(folder: &Folder, home: &str) {
    let lock = File::open(folder.path(&format!("{home}/storage/lock"))).unwrap();
    let (free, freed) = mpsc::channel();
    thread::spawn(move || {
        lock.lock().unwrap();
        free.send(()).unwrap();
    });
    let freed = freed.recv_timeout(Duration::from_secs(30));
    assert!(freed.is_ok(), "the module of {home} still runs");
}

#[test]
fn ended_demo_ends_its_modules_and_removes_its_folder() {
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let folder = Folder::new();
        let mut demo = with_running_dpm(&folder, &[]);

        signal(&demo, name);

        assert_eq!(demo.wait().unwrap().code(), Some(code));
        assert_eq!(folder.names("tmp"), [""; 0]);
    }
}

#[test]
fn ended_demo_that_keeps_its_folder_leaves_no_module_running() {
    let folder = Folder::new();
    let mut demo = with_running_dpm(&folder, &["--keep", "mine"]);

    signal(&demo, "-TERM");

    assert_eq!(demo.wait().unwrap().code(), Some(143));
    until_free(&folder, "mine/dpm");
    assert_eq!(folder.names("tmp"), [""; 0]);
}

#[test]
fn modules_of_a_killed_demo_end_by_themselves() {
    let folder = Folder::new();
    let mut demo = with_running_dpm(&folder, &["--keep", "mine"]);

    demo.kill().unwrap();
    demo.wait().unwrap();

    until_free(&folder, "mine/dpm");
}

#[test]
fn the_demo_fits_into_80_columns() {
    let folder = Folder::new();
    for keep in ["", " --keep mine"] {
        let run = folder.run(&format!("demo{keep}")).exits(0);
        let wide = run.stdout.lines().filter(|line| line.chars().count() > 80);
        // The folder's name is one word, whatever its length.
        let wide: Vec<_> = wide.filter(|line| !line.contains(" files in ")).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}

#[test]
fn settings_of_the_environment_do_not_reach_the_demo() {
    let folder = Folder::new();
    let run = command(&folder.path(""))
        .arg("demo")
        .env("COUNTERSIGN_DEPLOYMENT_NAME", "foo")
        .env("ATACCAMA_SERVER_GRPC_TLS_ENABLED", "true")
        .output()
        .unwrap();

    assert!(run.status.success(), "{run:#?}");
}

#[test]
fn demo_leaves_homes_alone_that_are_there_and_says_where_it_cannot_write() {
    let folder = Folder::new();
    folder.write("mine/dpm/etc/application.properties", "x=1\n");
    folder.write("file", "");

    let there = folder.run("demo --keep mine").exits(6);
    let cannot = folder.run("demo --keep file/in").exits(3);

    assert!(there.stderr.contains("mine/dpm"), "{}", there.stderr);
    assert!(cannot.stderr.contains("file/in"), "{}", cannot.stderr);
    assert_eq!(folder.read("mine/dpm/etc/application.properties"), "x=1\n");
    assert_eq!(folder.names("mine"), ["dpm"]);
}

#[tokio::test]
async fn step_with_an_unexpected_result_is_reported_and_the_demo_goes_on() {
    use std::os::unix::fs::PermissionsExt as _;

    use countersign::internals::run_demo;

    let folder = Folder::new();
    // Modules that do all they must, but end with another exit code.
    let real = env!("CARGO_BIN_EXE_countersign");
    let script = format!(
        "#!/bin/sh\nexec 3<&0\ntrap 'kill -TERM $!' TERM\n{real} \"$@\" <&3 &\nwait; wait; exit 9\n"
    );
    folder.write("wrapped", script);
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path("wrapped"), executable).unwrap();
    let (binary, homes) = (folder.path("wrapped"), folder.path("homes"));
    let mut steps = Vec::new();

    let ended = run_demo(&binary, &homes, &mut |step| {
        steps.push((step.name, step.held));
    })
    .await;

    assert!(ended.unwrap() > Duration::ZERO);
    let failed: Vec<_> = steps.iter().filter(|(_, held)| !held).collect();
    assert_eq!(failed, [&("stopped", false)]);
}

#[tokio::test]
async fn demo_without_a_program_does_not_go_on() {
    use countersign::internals::run_demo;

    let folder = Folder::new();
    let (binary, homes) = (folder.path("missing"), folder.path("homes"));

    let error = run_demo(&binary, &homes, &mut |_| ()).await.unwrap_err();

    assert_eq!(error.to_string(), "cannot run dpm");
}

#[test]
fn a_kept_demo_leaves_two_homes_to_go_on_with() {
    let folder = Folder::new();

    let run = folder.run("demo --keep mine -o json").exits(0);

    assert_eq!(run.json()["held"], true);
    assert_eq!(run.json()["steps"].as_array().unwrap().len(), 7);
    folder
        .run("check mine/dpm/etc/application.properties mine/dpe/etc/application.properties")
        .exits(0);
    folder
        .run("token issue --home mine/dpe --audience dpm-dev")
        .exits(0);
}

#[test]
fn no_part_of_a_private_key_is_shown_by_the_demo() {
    let folder = Folder::new();
    let run = folder.run("demo --keep mine").exits(0);

    for module in ["dpm", "dpe"] {
        let file = folder.read(&format!("mine/{module}/etc/application.properties"));
        let key = file
            .split("generator.key=")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        let log = folder.read(&format!("mine/{module}/log/spring-boot-logger.json.log"));
        for part in key
            .as_bytes()
            .chunks(20)
            .map(|part| str::from_utf8(part).unwrap())
        {
            let shown =
                run.stdout.contains(part) || run.stderr.contains(part) || log.contains(part);
            assert!(!shown, "{part}");
        }
    }
}
