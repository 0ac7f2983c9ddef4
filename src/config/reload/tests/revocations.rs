//! Revocations outlive what files say later.

use super::*;
use crate::storage::revoked_keys::{Record, Standing, remember};

const NO: &str = "security.jwt-keys.key.is-revoked=false";
const YES: &str = "security.jwt-keys.key.is-revoked=true";

fn storage(world: &World) -> std::path::PathBuf {
    world.folder.path().join("dpm/storage")
}

fn undo(world: &World, key: &SigningKey) {
    let undone = Record {
        standing: Standing::Undone,
        key: key.fingerprint(),
        time: "2027-01-15T08:00:00Z".to_owned(),
        deployment: "dpe-dev".to_owned(),
    };
    remember(&storage(world), &[undone]).unwrap();
}

/// A module whose file revokes a key, which its home cannot remember; the file without that, and
/// the key.
fn not_stored() -> (World, String, SigningKey) {
    let revoked = key();
    let trusting = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked);
    let mut world = World::new(&trusting);
    world
        .folder
        .write("dpm/storage/revoked-keys.lock/x", "in the way");
    world.applied(trusting.replace(NO, YES));
    (world, trusting, revoked)
}

/// How many keys the file trusts although they are revoked.
fn trusted_again(world: &World) -> usize {
    world.follower.revocations.trusted_again.len()
}

#[test]
fn a_cut_off_or_restored_file_trusts_no_revoked_key() {
    let (own, revoked, other) = (own_line(&key()), key(), key());
    let before = own.clone() + &deployment("dpe-dev", "dpe", &revoked);
    let mut world = World::new(&before);
    assert!(world.accepts(&revoked));
    let after = before.replace(NO, YES);
    let applied = world.applied(&after);
    assert_eq!(applied.revoked, [vec![revoked.fingerprint()], vec![]]);
    assert!(!world.accepts(&revoked));
    let remembered = Remembered::read(&storage(&world)).unwrap();
    assert_eq!(remembered.revoked(), [revoked.fingerprint()]);

    let mut applied = 0;
    for end in 0..=after.len() {
        let looked = world.step(&after.as_bytes()[..end]);
        applied += usize::from(matches!(looked, Looked::Applied(_)));
        assert!(!world.accepts(&revoked), "cut at byte {end}");
    }
    // Some of these pass for whole files; that is not what the key owes its revocation to.
    assert!(applied > 10, "{applied}");
    // A key that was gone for a while, too.
    world.applied(own.clone() + &deployment("dpe-two", "dpe", &other));
    let restored = world.applied(&before);
    // The other warning is of a deployment without a key.
    assert_eq!((trusted_again(&world), restored.warnings), (1, 2));
    assert!(!world.accepts(&revoked));
    // Nor under another name, after a restart.
    let mut world = world.restarted();
    assert_eq!(trusted_again(&world), 1);
    assert!(!world.accepts(&revoked));
    world.applied(own + &deployment("dpe-new", "dpe", &revoked));
    assert!(!world.accepts(&revoked));
}

#[test]
fn undo_takes_it_back_without_a_restart_and_the_module_writes_nothing_against_it() {
    let revoked = key();
    let trusting = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked);
    let mut world = World::new(&trusting.replace(NO, YES));
    // First the file, then the memory.
    world.applied(&trusting);
    assert!(!world.accepts(&revoked));
    assert!(matches!(world.follower.look(false), Looked::Same));

    undo(&world, &revoked);
    let Looked::Applied(applied) = world.follower.look(false) else {
        panic!("not noticed");
    };

    assert_eq!(applied.revoked, [vec![], vec![revoked.fingerprint()]]);
    assert!(world.accepts(&revoked));
    assert_eq!(trusted_again(&world), 0);
    assert!(matches!(world.follower.look(false), Looked::Same));
    world.applied(trusting.replace(NO, YES));
    world.applied(&trusting);
    assert!(!world.accepts(&revoked), "revoked once more");
}

#[test]
fn no_placeholder_profile_or_variable_takes_a_revocation_back() {
    let revoked = key();
    let peer = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked);
    let by_name = peer.replace("is-revoked=false", "is-revoked=${peers.revoked:false}");
    let mut world = World::new(&format!("{by_name}peers.revoked=true\n"));
    assert!(!world.accepts(&revoked));

    world.applied(&by_name);
    assert!(!world.accepts(&revoked));
    world.applied(&peer);
    assert!(!world.accepts(&revoked));
    let profile = format!("{D}.dpe-dev.{NO}\n");
    world.folder.write(PROFILE, profile);
    world.applied(format!("{peer}spring.profiles.active=prod\n"));
    assert!(!world.accepts(&revoked));
}

#[test]
fn what_cannot_be_stored_is_remembered_in_the_process_and_stored_when_it_can_be() {
    let (first, second) = (key(), key());
    let own = own_line(&key());
    let [one, two] =
        [("dpe-dev", &first), ("dpe-two", &second)].map(|(name, key)| deployment(name, "dpe", key));
    let mut world = World::new(&(own.clone() + &one + &two));
    world
        .folder
        .write("dpm/storage/revoked-keys.lock/x", "in the way");

    world.applied(own.clone() + &one.replace(NO, YES) + &two);
    let cause = world.follower.revocations.not_stored.clone().unwrap();
    assert!(cause.contains("storage/revoked-keys"), "{cause}");
    world.applied(own.clone() + &two);
    world.applied(own.clone() + &one + &two);
    assert!(!world.accepts(&first));

    std::fs::remove_dir_all(storage(&world)).unwrap();
    world.applied(own + &one + &two.replace(NO, YES));
    assert_eq!(world.follower.revocations.not_stored, None);
    let remembered = Remembered::read(&storage(&world)).unwrap();
    assert!(
        [first, second]
            .iter()
            .all(|key| remembered.has(key.fingerprint()))
    );
}

#[test]
fn a_revocation_holds_although_the_memory_cannot_be_read() {
    let (first, second) = (key(), key());
    let own = own_line(&key());
    let [one, two] =
        [("dpe-dev", &first), ("dpe-two", &second)].map(|(name, key)| deployment(name, "dpe", key));
    let mut world = World::new(&(own.clone() + &one.replace(NO, YES) + &two));
    world.folder.write("dpm/storage/revoked-keys", "nonsense\n");

    world.applied(own.clone() + &one + &two.replace(NO, YES));

    // What the memory said last holds, too.
    assert!(!world.accepts(&first) && !world.accepts(&second));
    let cause = world.follower.revocations.not_stored.clone().unwrap();
    assert!(cause.contains("line 1 is not"), "{cause}");
    assert!(matches!(world.follower.look(false), Looked::Same));
    std::fs::remove_file(storage(&world).join("revoked-keys")).unwrap();
    world.applied(own + &one.replace(NO, YES) + &two);
    assert!(!world.accepts(&second));
    assert_eq!(world.follower.revocations.not_stored, None);
}

#[test]
fn a_revocation_that_could_not_be_stored_is_stored_as_soon_as_it_can_be() {
    let (mut world, trusting, revoked) = not_stored();

    // The file says nothing of it any more, and the disk has room again.
    world.applied(trusting.replace(&deployment("dpe-dev", "dpe", &revoked), ""));
    assert!(world.follower.revocations.not_stored.is_some());
    std::fs::remove_dir_all(storage(&world)).unwrap();
    world.ticks(40);

    assert_eq!(world.follower.revocations.not_stored, None);
    let remembered = Remembered::read(&storage(&world)).unwrap();
    assert_eq!(remembered.revoked(), [revoked.fingerprint()]);
}

#[test]
fn a_revocation_that_could_not_be_stored_can_be_undone() {
    let (mut world, trusting, revoked) = not_stored();
    world.applied(&trusting);
    assert!(!world.accepts(&revoked));
    std::fs::remove_dir_all(storage(&world)).unwrap();

    undo(&world, &revoked);

    assert!(matches!(world.follower.look(false), Looked::Applied(_)));
    assert!(world.accepts(&revoked));
    world.follower.tick();
    assert_eq!(Remembered::read(&storage(&world)).unwrap().revoked(), []);
}

#[test]
fn an_undo_just_before_a_retry_holds() {
    let (mut world, trusting, revoked) = not_stored();
    std::fs::remove_dir_all(storage(&world)).unwrap();

    world.folder.write(FILE, &trusting);
    undo(&world, &revoked);
    world.ticks(40);

    assert_eq!(Remembered::read(&storage(&world)).unwrap().revoked(), []);
    let Looked::Applied(applied) = world.follower.look(false) else {
        panic!("not noticed");
    };
    assert_eq!(applied.revoked, [vec![], vec![revoked.fingerprint()]]);
    assert!(world.accepts(&revoked));
}

#[test]
fn a_memory_that_is_gone_takes_no_revocation_back() {
    let revoked = key();
    let trusting = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked);
    let mut world = World::new(&trusting);
    undo(&world, &revoked);
    world.applied(trusting.clone() + "\n");
    let lock = storage(&world).join("revoked-keys.lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    world.applied(trusting.replace(NO, YES));
    assert!(world.follower.revocations.not_stored.is_some());

    std::fs::remove_file(storage(&world).join("revoked-keys")).unwrap();
    world.applied(&trusting);

    assert!(!world.accepts(&revoked));
    std::fs::remove_dir(&lock).unwrap();
    world.ticks(40);
    let remembered = Remembered::read(&storage(&world)).unwrap();
    assert_eq!(remembered.revoked(), [revoked.fingerprint()]);
}

#[test]
fn files_that_are_good_again_are_reported_so_after_a_try_to_store() {
    let (mut world, trusting, _revoked) = not_stored();
    let good = trusting.replace(NO, YES);

    world.failed(good.clone() + "countersign.nonsense=1\n");
    world.ticks(40);

    assert!(matches!(world.follower.look(false), Looked::Same));
    world.applied(&good);
}

#[test]
fn expiry_by_time_does_not_keep_a_revocation_out() {
    let pems = Folder::new();
    pems.certificate("a");
    let [chain, private] = ["a.pem", "a-key.pem"].map(|name| pems.path().join(name));
    let tls = format!(
        "ataccama.server.grpc.tls.enabled=true\nataccama.server.grpc.tls.cert-chain={}\n\
         ataccama.server.grpc.tls.private-key={}\n",
        chain.display(),
        private.display()
    );
    let revoked = key();
    let before = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked) + &tls;
    let mut world = World::new(&before);
    assert!(world.accepts(&revoked));

    pems.certificate_with("a", |params| {
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let applied = world.applied(before.replace("is-revoked=false", "is-revoked=true"));

    assert!(!world.accepts(&revoked));
    assert!(applied.warnings > 0, "{applied:?}");
    // A start refuses the same files.
    let home = world.folder.path().join("dpm");
    let refused = Settings::load(&home, &ModuleKind::Dpm, [], &[]).unwrap_err();
    assert!(refused.to_string().contains("CS0308"), "{refused}");
}
