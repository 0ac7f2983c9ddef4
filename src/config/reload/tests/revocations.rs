//! Revocations outlive what files say later.

use super::*;

#[test]
fn cut_off_file_never_takes_a_revocation_back() {
    let (own, revoked, other) = (own_line(&key()), key(), key());
    let before = own.clone() + &deployment("dpe-dev", "dpe", &revoked);
    let mut world = World::new(&before);
    assert!(world.accepts(&revoked));
    let after = before.replace("is-revoked=false", "is-revoked=true");
    world.applied(&after);
    assert!(!world.accepts(&revoked));

    let mut applied = 0;
    for end in 0..=after.len() {
        let looked = world.step(&after.as_bytes()[..end]);
        applied += usize::from(matches!(looked, Looked::Applied(_)));
        assert!(!world.accepts(&revoked), "cut at byte {end}");
    }
    // Some of these pass for whole files; that is not what the key owes its revocation to.
    assert!(applied > 10, "{applied}");
    // The same for a file that has lost the line alone.
    let line = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked=true\n");
    let lost = after.replace(&line, "");
    let applied = world.applied(&lost);
    assert_eq!(applied.still_revoked.len(), 1, "{applied:?}");
    assert!(!world.accepts(&revoked));
    // A key that was gone for a while, too.
    world.applied(own + &deployment("dpe-two", "dpe", &other));
    world.applied(&lost);
    assert!(!world.accepts(&revoked));

    let applied = world.applied(&before);
    assert!(applied.still_revoked.is_empty(), "{applied:?}");
    assert!(world.accepts(&revoked));
    // And once it was taken back, the default holds again.
    assert!(world.applied(&lost).still_revoked.is_empty());
    assert!(world.accepts(&revoked));
}

#[test]
fn revocation_is_not_taken_back_by_what_comes_through_from_below() {
    let revoked = key();
    let peer = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked);
    let profile = |world: &World, word: &str| {
        let text = format!("{D}.dpe-dev.security.jwt-keys.key.is-revoked={word}\n");
        world.folder.write(PROFILE, text);
    };
    let main = format!("{peer}spring.profiles.active=prod\n");
    let mut world = World::new(&main);
    profile(&world, "true");
    world.applied(format!("{main}# revoked\n"));
    assert!(!world.accepts(&revoked));

    world.step(peer.as_bytes());
    assert!(!world.accepts(&revoked), "no profile is active");
    world.folder.write(PROFILE, "");
    world.applied(format!("{main}# empty\n"));
    assert!(!world.accepts(&revoked), "the profile says nothing");
    profile(&world, "${x:false}");
    world.applied(format!("{main}# default\n"));
    assert!(
        !world.accepts(&revoked),
        "a placeholder's default is no word"
    );
    profile(&world, "false");
    world.applied(&main);
    assert!(world.accepts(&revoked));
}

#[test]
fn revocation_by_a_placeholder_is_not_taken_back_by_its_default() {
    let revoked = key();
    let peer = own_line(&key()) + &deployment("dpe-dev", "dpe", &revoked);
    let by_name = peer.replace("is-revoked=false", "is-revoked=${peers.revoked:false}");
    let mut world = World::new(&format!("{by_name}peers.revoked=true\n"));
    assert!(!world.accepts(&revoked));

    let applied = world.applied(&by_name);

    assert_eq!(applied.still_revoked.len(), 1);
    assert!(!world.accepts(&revoked));
    world.applied(&peer);
    assert!(world.accepts(&revoked));
}

#[test]
fn key_that_was_revoked_at_the_start_stays_so() {
    let (own, revoked) = (own_line(&key()), key());
    let peer = deployment("dpe-dev", "dpe", &revoked);
    let more = deployment("dpe-two", "dpe", &key());
    let text = own + &more + &peer;
    let mut world = World::new(&text.replace(
        "dpe-dev.security.jwt-keys.key.is-revoked=false",
        "dpe-dev.security.jwt-keys.key.is-revoked=true",
    ));

    world.applied(text.replace(
        "dpe-dev.security.jwt-keys.key.is-revoked=false\n",
        "dpe-dev.uri=x\n",
    ));

    assert!(!world.accepts(&revoked));
}
