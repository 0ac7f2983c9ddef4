use std::fs;

use super::*;
use crate::admin::write::{FolderLock, kill};
use crate::config;
use crate::diagnostic::{Code, Severity};
use crate::identity::ModuleType;

fn members(folder: &Path) -> [Member; 2] {
    ["dpm", "dpe"].map(|module| {
        let path = folder.join(module).join("application.properties");
        Member::new(ModuleType::new(module).unwrap(), path)
    })
}

fn options() -> Options {
    Options::default()
}

#[test]
fn a_plan_writes_nothing_until_it_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());

    let made = plan(&members, None, &options()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    made.change.carry_out().unwrap();

    assert!(!made.change.is_empty() && made.change.files.iter().all(|file| !file.is_there()));
    assert!(plan(&members, None, &options()).unwrap().change.is_empty());
}

#[test]
fn a_file_that_another_program_changed_meanwhile_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());
    let [dpm, dpe] = members.each_ref().map(|member| &member.path);
    let made = plan(&members, None, &options()).unwrap();
    fs::create_dir(dpe.parent().unwrap()).unwrap();
    fs::write(dpe, "mine=1\n").unwrap();

    let result = made.change.carry_out();

    let error = result.unwrap_err();
    assert!(matches!(error.kind(), Kind::Changed));
    assert!(error.to_string().contains(dpe.to_str().unwrap()));
    assert_eq!(fs::read_to_string(dpe).unwrap(), "mine=1\n");
    assert!(!dpm.exists());
}

#[test]
#[cfg(unix)]
fn two_pairings_do_not_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());
    let made = plan(&members, None, &options()).unwrap();
    fs::create_dir(members[1].path.parent().unwrap()).unwrap();
    let other = FolderLock::acquire(&members[1].path).unwrap();

    let result = made.change.carry_out();

    let error = result.unwrap_err();
    assert!(matches!(error.kind(), Kind::Busy));
    drop(other);
    made.change.carry_out().unwrap();
}

#[test]
fn two_files_in_one_folder_need_one_lock() {
    let folder = tempfile::tempdir().unwrap();
    let mut members = members(folder.path());
    for member in &mut members {
        member.path = folder.path().join(format!("{}.properties", member.module));
    }

    plan(&members, None, &options())
        .unwrap()
        .change
        .carry_out()
        .unwrap();

    assert!(plan(&members, None, &options()).unwrap().change.is_empty());
}

#[test]
fn encoding_and_byte_order_mark_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());
    let [dpm, dpe] = members.each_ref().map(|member| &member.path);
    let texts: [&[u8]; 2] = [b"\xef\xbb\xbfname=\xc3\xa9\n", b"name=\xe9\n"];
    for (path, text) in [dpm, dpe].into_iter().zip(texts) {
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    plan(&members, None, &options())
        .unwrap()
        .change
        .carry_out()
        .unwrap();

    for (path, text) in [dpm, dpe].into_iter().zip(texts) {
        assert!(fs::read(path).unwrap().starts_with(text));
    }
    assert!(plan(&members, None, &options()).unwrap().change.is_empty());
}

/// The file whose presence makes a child pair with TLS.
const TLS: &str = "tls";

fn pair_in(folder: &Path) -> Plan {
    let tls = folder.join(TLS).exists();
    let options = Options { tls, ..options() };
    let made = plan(&members(folder), None, &options).unwrap();
    made.change.carry_out().unwrap();
    made
}

#[test]
#[ignore = "is run by another test, which kills it"]
fn child() {
    pair_in(&kill::folder().unwrap());
}

#[test]
fn killed_between_any_two_writes_pairing_is_completed_by_the_next_run() {
    for (tls, files) in [(false, 3), (true, 8)] {
        let set_up = |folder: &Path| {
            for member in members(folder) {
                fs::create_dir(member.path.parent().unwrap()).unwrap();
                fs::write(&member.path, "# mine\nserver.port=0\n").unwrap();
            }
            if tls {
                fs::write(folder.join(TLS), "").unwrap();
            }
        };
        let look = |folder: &Path, at: u32| {
            for Member { path, .. } in members(folder) {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("# mine\nserver.port=0\n"), "{at}: {text}");
                let report = config::check(&[path], &[]).unwrap();
                // The file that is not written yet has no key.
                let errors = report.findings.iter().filter(|found| {
                    found.severity == Severity::Error && found.code != Code::Cs0301
                });
                let errors: Vec<_> = errors.map(ToString::to_string).collect();
                assert!(errors.is_empty(), "{at}: {errors:?}");
            }
            pair_in(folder);
            assert!(pair_in(folder).change.is_empty(), "{at}");
            let paths = members(folder).map(|member| member.path);
            assert_eq!(
                config::check(&paths, &[]).unwrap().findings.errors(),
                0,
                "{at}"
            );
            let left = ["dpm", "dpe"].map(|name| fs::read_dir(folder.join(name)).unwrap().count());
            // With the folder's lock.
            let each = if tls { 4 } else { 2 };
            assert_eq!(left, [each, each], "{at}");
        };

        let killed = kill::at_every_point("admin::pairing::tests::child", set_up, look);

        assert!(killed > files * 2, "it was killed {killed} times");
    }
}

#[test]
fn a_link_in_place_of_a_new_tls_file_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());
    let options = Options {
        tls: true,
        ..options()
    };
    let made = plan(&members, None, &options).unwrap();
    let key = &made.change.all().next().unwrap().path;
    let elsewhere = folder.path().join("elsewhere.pem");
    fs::create_dir(key.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, key).unwrap();

    let error = made.change.carry_out().unwrap_err();

    assert!(matches!(error.kind(), Kind::Taken));
    assert!(!elsewhere.exists() && !members[0].path.exists());
}
