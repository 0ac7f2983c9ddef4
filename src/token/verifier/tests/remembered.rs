//! Tokens that are used again: no signature check, and every other rule as at their first use.

use super::*;

/// A world whose verifier remembers tokens.
fn world() -> World {
    let mut world = World::new();
    world.verifier = world.verifier.clone().with_cache(Arc::default());
    world
}

impl World {
    /// Verifies `token`; returns whether it was remembered or why it is refused, and how many
    /// signatures were checked for that.
    fn counted(&self, token: &str, accept: Accept) -> (Result<bool, Reason>, u64) {
        checks::during(|| {
            let (verified, remembered) = self.verifier.verify_over(token, accept, None);
            let remembered = remembered.unwrap_or_default();
            verified
                .map(|_| remembered)
                .map_err(|refusal| refusal.reason)
        })
    }

    fn again(&self, token: &str) -> (Result<bool, Reason>, u64) {
        self.counted(token, Accept::Peers)
    }

    fn trust(&self, deployments: Vec<Deployment>) {
        let keys = KeySet::new(deployments, self.dpm.clone()).unwrap();
        self.verifier.trust().replace(keys);
    }
}

/// A world in which each token is accepted once.
fn strict_world() -> World {
    let mut world = world();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let guard = ReplayGuard::new(Policy::default(), clock);
    world.clock.advance(Duration::from_secs(60));
    world.verifier = world.verifier.clone().with_replay_guard(Arc::new(guard));
    world
}

/// Pins key `revoked` for connections of `dpe-dev`, and key `other` for those of `other`.
fn pin_connections(world: &World) {
    let with_pin = |name: &str, key: &SigningKey, tls: &SigningKey| Deployment {
        tls_pins: vec![tls.fingerprint()],
        ..deployment(name, None, vec![trusted(key, false)])
    };
    world.trust(vec![
        with_pin("dpe-dev", &world.dpe.key, &world.revoked),
        with_pin("other", &world.other, &world.other),
    ]);
}

#[test]
fn token_that_is_used_again_costs_no_signature_check() {
    let world = world();
    let token = world.with(&json!({}));

    assert_eq!(world.again(&token), (Ok(false), 1));
    assert_eq!(world.again(&token), (Ok(true), 0));
    assert_eq!(
        world.again(&world.with(&json!({"jti": "two"}))),
        (Ok(false), 1)
    );
}

#[test]
fn token_that_nearly_is_a_remembered_one_is_checked_by_itself() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{input}.{}", BASE64URL.encode([1; 64]));
    let claims = BASE64URL.encode(world.claims().to_string().replace("one", "two"));
    let header = token.split('.').next().unwrap();

    for altered in [forged, format!("{header}.{claims}.{signature}")] {
        let refused = Err(Reason::SignatureInvalid);
        assert_eq!(world.again(&altered), (refused, 1));
    }
    assert_eq!(world.again(&token), (Ok(true), 0));
}

#[test]
fn token_that_is_refused_is_not_remembered() {
    let world = world();
    let late = world.with(&json!({"exp": NOW - 60, "iat": NOW - 90}));

    for _ in 0..2 {
        assert_eq!(world.again(&late), (Err(Reason::TokenExpired), 1));
    }
}

#[test]
fn remembered_token_expires() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();

    world.clock.advance(Duration::from_secs(331));

    assert_eq!(world.again(&token), (Err(Reason::TokenExpired), 0));
}

#[test]
fn revocation_counts_for_remembered_tokens_at_once() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();
    let with_key = |revoked| {
        let keys = vec![trusted(&world.dpe.key, revoked)];
        world.trust(vec![deployment("dpe-dev", Some("IMPERSONATION"), keys)]);
    };

    with_key(true);
    assert_eq!(world.again(&token), (Err(Reason::KeyRevoked), 0));
    with_key(false);
    assert_eq!(world.again(&token), (Ok(true), 0));
    world.trust(Vec::new());
    assert_eq!(world.again(&token), (Err(Reason::KeyUnknown), 0));
}

#[test]
fn remembered_token_is_checked_again_where_its_key_id_names_another_key() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();

    let mut key = trusted(&world.other, false);
    key.key_id = KeyId::new(&world.kid()).unwrap();
    world.trust(vec![deployment("dpe-dev", None, vec![key])]);

    let refused = Err(Reason::SignatureInvalid);
    assert_eq!(world.again(&token), (refused, 1));
}

#[test]
fn remembered_token_has_the_roles_of_now() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();

    let keys = vec![trusted(&world.dpe.key, false)];
    world.trust(vec![deployment("dpe-dev", Some("READER"), keys)]);
    let (verified, checks) = checks::during(|| world.verifier.verify(&token, Accept::Peers));

    assert_eq!(checks, 0);
    assert_eq!(
        verified.unwrap().identity().to_string(),
        "ServiceIdentity(module=dpe, id=dpe-dev, roles=[READER])"
    );
}

#[test]
fn remembered_token_is_not_taken_over_a_connection_of_another_deployment() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();
    pin_connections(&world);

    let over = |tls: &SigningKey| {
        let pin = Some(tls.fingerprint());
        let (verified, remembered) = world.verifier.verify_over(&token, Accept::Peers, pin);
        assert_eq!(remembered, Some(true));
        verified.map(drop).map_err(|refusal| refusal.reason)
    };

    assert_eq!(over(&world.revoked), Ok(()));
    assert_eq!(over(&world.other), Err(Reason::IssuerMismatch));
}

#[test]
fn own_module_token_that_is_remembered_is_accepted_only_where_the_method_says_so() {
    let world = world();
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let token = issuer_as(&world.dpm, clock).issue_for_own_module().unwrap();
    let accept = Accept::PeersAndOwnModule;

    assert_eq!(world.counted(token.expose(), accept), (Ok(false), 1));
    assert_eq!(world.counted(token.expose(), accept), (Ok(true), 0));
    let refused = Err(Reason::TokenMalformed);
    assert_eq!(world.again(token.expose()), (refused, 0));
}

#[test]
fn nothing_is_remembered_where_each_token_is_taken_once() {
    let world = strict_world();
    let token = world.with(&json!({"iat": NOW + 60}));

    assert!(world.verifier.cache().is_none());
    assert_eq!(world.again(&token), (Ok(false), 1));
    assert_eq!(world.again(&token), (Err(Reason::TokenReplayed), 1));
}

#[test]
fn token_over_a_connection_of_another_deployment_is_not_counted_as_used() {
    let world = strict_world();
    pin_connections(&world);
    let token = world.with(&json!({"iat": NOW + 60}));
    let over = |tls: &SigningKey| {
        let pin = Some(tls.fingerprint());
        let (verified, _) = world.verifier.verify_over(&token, Accept::Peers, pin);
        verified.map(drop).map_err(|refusal| refusal.reason)
    };

    assert_eq!(over(&world.other), Err(Reason::IssuerMismatch));
    assert_eq!(over(&world.revoked), Ok(()));
    assert_eq!(over(&world.revoked), Err(Reason::TokenReplayed));
}

#[test]
fn long_tokens_are_not_remembered() {
    let world = world();
    let audience: Vec<_> = (0..7)
        .map(|n| format!("{n}{}", "x".repeat(250)))
        .chain(["dpm-dev".to_owned()])
        .collect();
    let long = world.with(&json!({"aud": audience}));

    assert!(long.len() > 2048);
    for _ in 0..2 {
        assert_eq!(world.again(&long), (Ok(false), 1));
    }
}

#[test]
fn operators_question_is_answered_by_the_signature() {
    let world = world();
    let token = world.with(&json!({}));
    world.again(&token).0.unwrap();

    let (examined, checks) = checks::during(|| world.verifier.examine(&token, Accept::Peers));

    examined.unwrap();
    assert_eq!(checks, 1);
}

#[test]
fn remembered_tokens_are_bounded() {
    let cache = VerifiedCache::default();
    let world = World::new();
    let content = Arc::new(Signed {
        header: Compact::parse(&world.with(&json!({})))
            .unwrap()
            .header()
            .clone(),
        key: world.dpe.key.verifying_key().clone(),
        claims: world
            .verifier
            .claims_of(world.claims().to_string().as_bytes())
            .unwrap(),
    });

    for n in 0..30_000 {
        let digest = VerifiedCache::digest(&n.to_string()).unwrap();
        cache.0.insert(digest, Arc::clone(&content));
    }

    let kept = cache.0.len();
    assert!((1000..9000).contains(&kept), "{kept}");
}
