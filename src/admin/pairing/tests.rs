use super::*;

const OPTIONS_ROLE: &str = "IMPERSONATION";

fn members(folder: &Path) -> [Member; 2] {
    ["dpm", "dpe"].map(|module| Member {
        module: ModuleType::new(module).unwrap(),
        path: folder.join(module).join("application.properties"),
        name: None,
        key: None,
    })
}

fn options() -> Options {
    Options {
        environment: None,
        role: Role::new(OPTIONS_ROLE).unwrap(),
        key_name: None,
        tls: false,
    }
}

#[test]
fn a_plan_writes_nothing_until_it_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());

    let made = plan(&members, &options()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    made.carry_out().unwrap();

    assert!(!made.is_empty() && !made.touches_existing());
    assert!(plan(&members, &options()).unwrap().is_empty());
}

#[test]
fn a_file_that_somebody_else_changed_meanwhile_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());
    let [dpm, dpe] = members.each_ref().map(|member| &member.path);
    let made = plan(&members, &options()).unwrap();
    fs::create_dir(dpe.parent().unwrap()).unwrap();
    fs::write(dpe, "mine=1\n").unwrap();

    let result = made.carry_out();

    assert!(matches!(result, Err(PairError::Write(WriteError::Changed(path))) if path == *dpe));
    assert_eq!(fs::read_to_string(dpe).unwrap(), "mine=1\n");
    assert!(!dpm.exists());
}

#[test]
#[cfg(unix)]
fn two_pairings_do_not_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let members = members(folder.path());
    let made = plan(&members, &options()).unwrap();
    fs::create_dir(members[1].path.parent().unwrap()).unwrap();
    let other = FolderLock::acquire(&members[1].path).unwrap();

    let result = made.carry_out();

    assert!(matches!(result, Err(PairError::Write(WriteError::Busy(_)))));
    drop(other);
    made.carry_out().unwrap();
}

#[test]
fn two_files_in_one_folder_need_one_lock() {
    let folder = tempfile::tempdir().unwrap();
    let mut members = members(folder.path());
    for member in &mut members {
        member.path = folder.path().join(format!("{}.properties", member.module));
    }

    plan(&members, &options()).unwrap().carry_out().unwrap();

    assert!(plan(&members, &options()).unwrap().is_empty());
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

    plan(&members, &options()).unwrap().carry_out().unwrap();

    for (path, text) in [dpm, dpe].into_iter().zip(texts) {
        assert!(fs::read(path).unwrap().starts_with(text));
    }
    assert!(plan(&members, &options()).unwrap().is_empty());
}
