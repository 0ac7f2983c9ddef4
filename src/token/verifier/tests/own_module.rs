//! The module's own tokens, and its own key when it changes.

use super::*;

#[test]
fn own_module_token_is_accepted_only_where_the_method_says_so() {
    let world = World::new();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let issuer = issuer_as(&world.dpm, clock);
    let token = issuer.issue_for_own_module().unwrap();

    let accepted = world
        .verifier
        .verify(token.expose(), Accept::PeersAndOwnModule)
        .unwrap();

    assert_eq!(
        accepted.identity().to_string(),
        "ServiceIdentity(module=dpm, id=dpm-dev, roles=[])"
    );
    assert!(accepted.deployment().is_none());
    assert_eq!(world.reason(token.expose()), Err(Reason::TokenMalformed));
    world.clock.advance(Duration::from_secs(60));
    let late = world
        .verifier
        .verify(token.expose(), Accept::PeersAndOwnModule);
    assert_eq!(late.unwrap_err().reason, Reason::TokenExpired);
}

#[test]
fn peers_token_that_looks_like_the_own_modules_is_malformed() {
    let world = World::new();
    let kid = world.dpe.fingerprint().to_string();
    let header = json!({"alg": "ES256", "typ": OWN_MODULE_TYPE, "kid": kid});
    let claims =
        json!({"iss": "dpe-dev", "sub": "dpe-dev", "aud": "dpm-dev", "iat": NOW, "exp": NOW + 30});

    let token = sign(&header, claims.to_string().as_bytes(), &world.dpe.key);
    let verified = world.verifier.verify(&token, Accept::PeersAndOwnModule);

    assert_eq!(verified.unwrap_err().reason, Reason::TokenMalformed);
}

#[test]
fn own_module_token_that_lives_long_is_refused() {
    let world = World::new();
    let kid = world.dpm.fingerprint().to_string();
    let header = json!({"alg": "ES256", "typ": OWN_MODULE_TYPE, "kid": kid});
    let claims =
        json!({"iss": "dpm-dev", "sub": "dpm-dev", "aud": kid, "iat": NOW, "exp": NOW + 31});

    let token = sign(&header, claims.to_string().as_bytes(), &world.dpm.key);
    let verified = world.verifier.verify(&token, Accept::PeersAndOwnModule);

    assert_eq!(verified.unwrap_err().reason, Reason::TokenLifetimeTooLong);
}

/// Swaps the own key of `world`'s module; returns it as it is from then on.
fn swap_own_key(world: &World, accepted: Vec<Fingerprint>) -> OwnDeployment {
    let swapped = OwnDeployment {
        accepted,
        ..own("dpm", "dpm-dev")
    };
    let trust = world.verifier.trust();
    let deployments = trust.load();
    let deployments = deployments.deployments().iter().map(|d| (**d).clone());
    let keys = KeySet::new(deployments.collect(), swapped.clone());
    trust.replace(keys.unwrap());
    swapped
}

#[test]
fn token_may_be_addressed_to_the_next_and_to_earlier_own_keys() {
    let world = World::new();
    let to = |own: &OwnDeployment| {
        world.with(&json!({"aud": ["dpm-dev", own.fingerprint().to_string()]}))
    };
    let next = own("dpm", "dpm-dev");
    assert_eq!(world.reason(&to(&next)), Err(Reason::AudienceMismatch));

    let accepted = vec![next.fingerprint(), world.dpm.fingerprint()];
    let swapped = swap_own_key(&world, accepted);

    for own in [&swapped, &next, &world.dpm] {
        assert_eq!(world.reason(&to(own)), Ok(()));
    }
    swap_own_key(&world, Vec::new());
    assert_eq!(world.reason(&to(&world.dpm)), Err(Reason::AudienceMismatch));
}

#[test]
fn swapped_own_key_is_used_by_the_next_signature_and_ends_what_the_old_one_opened() {
    let world = World::new();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let trust = Arc::clone(world.verifier.trust());
    let issuer = TokenIssuer::new(Arc::clone(&trust), Policy::default(), clock);
    let verify = |token: &str| world.verifier.verify(token, Accept::PeersAndOwnModule);
    let before = issuer.issue_for_own_module().unwrap();
    let opened = verify(before.expose()).unwrap();
    opened.still_trusted(&trust.current()).unwrap();

    swap_own_key(&world, vec![world.dpm.fingerprint()]);

    assert!(verify(issuer.issue_for_own_module().unwrap().expose()).is_ok());
    let refused = verify(before.expose()).unwrap_err();
    assert_eq!(refused.reason, Reason::KeyUnknown);
    let ended = opened.still_trusted(&trust.current()).unwrap_err();
    assert_eq!(ended.reason, Reason::KeyUnknown);
}
