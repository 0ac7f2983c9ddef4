//! Files that change under running processes.

use std::fs;

use super::modules::{ANY_PORT, Running, paired};

#[test]
fn running_modules_follow_their_files() {
    let folder = paired();
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let port = dpm.port();
    let to_dpm = format!("--set ataccama.client.connection.dpm.grpc.port={port}");
    let mut dpe = Running::start(&folder, &format!("dpe run --home dpe {ANY_PORT} {to_dpm}"));
    dpe.until("Engine registered");
    dpm.until("newStatus=READY");
    dpe.drain();
    let path = folder.path("dpm/etc/application.properties");
    let text = fs::read_to_string(&path).unwrap();
    let (yes, no) = ("is-revoked=true", "is-revoked=false");
    assert!(text.contains(no), "{text}");

    fs::write(&path, text.replace(no, yes)).unwrap();
    // What follows a change may be logged before the change.
    let [line, _] = dpm.until_each(["configReloaded", "newStatus=DISCONNECTED"]);
    assert!(line.contains("dpe-dev trusted → revoked"), "{line}");

    // A file without the line does not take it back.
    let lines = text.lines().filter(|line| !line.ends_with(no));
    let lost: Vec<_> = lines.collect();
    fs::write(&path, lost.join("\n") + "\n").unwrap();
    dpm.until("revokedKeyTrusted");

    let next = path.with_extension("next");
    fs::copy(&path, &next).unwrap();
    fs::write(&next, &text).unwrap();
    fs::rename(&next, &path).unwrap();
    let line = dpm.until("configReloaded");
    assert!(!line.contains("→ trusted"), "{line}");
    let undo = "revoke --undo --home dpm --deployment dpe-dev --key key --yes";
    folder.run(undo).exits(0);
    let [line, _] = dpm.until_each(["dpe-dev revoked → trusted", "newStatus=READY"]);
    assert!(line.contains("configReloaded"), "{line}");

    // What was not written to its end is not applied, and a signal is answered each time.
    let end = text.find(".content=").unwrap() + 60;
    fs::write(&path, text.split_at(end).0).unwrap();
    let line = dpm.until("configReloadFailed");
    assert!(line.contains("CS0201"), "{line}");
    dpm.signal("-HUP");
    dpm.until("configReloadFailed");
    fs::write(&path, &text).unwrap();
    dpm.until("configReloaded");
    dpm.signal("-HUP");
    let line = dpm.until("configReloaded");
    assert!(line.contains("No setting changed"), "{line}");

    let port = text.clone() + "countersign.token.leeway=10s\n";
    fs::write(&path, port).unwrap();
    let line = dpm.until("configNeedsRestart");
    assert!(line.contains("countersign.token.leeway"), "{line}");
}
