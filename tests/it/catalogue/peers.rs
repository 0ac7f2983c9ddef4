//! The callee's identity and those that it trusts.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;

use countersign::Module;
use countersign::clock::{Clock, ManualClock};
use countersign::grpc::ModuleBuilder;
use countersign::identity::{DeploymentName, ModuleType, Role, Roles};
use countersign::jose::{PublicJwk, SigningKey};
use countersign::testing::{own_deployment, trusted};
use countersign::trust::{Deployment, OwnDeployment, TrustedKey};
use serde_json::Value;

use crate::support::draft::{Draft, text};

/// The time of every clock here, in seconds since 1970.
pub(super) const NOW: u64 = 1_800_000_000;

/// The keys of all modules, and the clock.
pub(super) struct Peers {
    pub(super) clock: Arc<ManualClock>,
    pub(super) own: OwnDeployment,
    /// Trusted, with the role.
    pub(super) caller: OwnDeployment,
    /// The second key of the caller: revoked.
    pub(super) revoked: SigningKey,
    /// Trusted, with the role, and another deployment.
    pub(super) other: OwnDeployment,
    /// Its only key is revoked.
    pub(super) retired: OwnDeployment,
    /// Trusted, with another role only.
    pub(super) reader: OwnDeployment,
    /// Trusted, with the role in another case.
    pub(super) lower: OwnDeployment,
    /// Trusted by no module.
    pub(super) stranger: OwnDeployment,
    /// Signatures of other algorithms; their key is trusted, with the role.
    pub(super) vectors: Value,
    /// A server that no token may make the callee call.
    pub(super) canary: Canary,
}

impl Peers {
    /// Makes a module of type `own`, called by modules of type `callers`.
    pub(super) fn new(own: &str, callers: &str) -> Self {
        let vectors = include_str!("../../data/foreign_signatures.json");
        let named = |name: &str| own_deployment(callers, name);
        // The caller's key id differs between the two alphabets of base64.
        let caller = std::iter::repeat_with(|| named(&format!("{callers}-dev")))
            .find(|caller| caller.key_id.as_str().contains(['-', '_']));
        Self {
            clock: Arc::new(ManualClock::at_unix(NOW)),
            own: own_deployment(own, &format!("{own}-dev")),
            caller: caller.unwrap(),
            revoked: SigningKey::generate().unwrap(),
            other: named(&format!("{callers}-two")),
            retired: named("retired"),
            reader: named("reader"),
            lower: named("lower"),
            stranger: named("stranger"),
            vectors: serde_json::from_str(vectors).unwrap(),
            canary: Canary::new(),
        }
    }

    /// Makes the callee, on the clock.
    pub(super) fn module(&self) -> Module {
        let mut caller = trusted(&self.caller);
        caller.keys.push(revoked_key(&self.revoked));
        let mut retired = trusted(&self.retired);
        retired.keys[0].revoked = true;
        let deployments = [
            caller,
            trusted(&self.other),
            retired,
            with_role(trusted(&self.reader), "ADMIN"),
            with_role(trusted(&self.lower), "impersonation"),
            self.maker_of_vectors(),
        ];
        let builder = Module::builder(self.own.clone());
        let builder = deployments.into_iter().fold(builder, ModuleBuilder::trust);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        builder.clock(clock).build().unwrap()
    }

    /// The deployment whose signatures were made elsewhere.
    fn maker_of_vectors(&self) -> Deployment {
        let jwk = PublicJwk::parse(&self.vectors["jwk"].to_string()).unwrap();
        let mut key = TrustedKey::new("key", jwk.key);
        key.key_id = jwk.kid.unwrap();
        let mut deployment = trusted(&self.caller);
        deployment.name = DeploymentName::new("vectors").unwrap();
        deployment.module = ModuleType::new("vectors").unwrap();
        deployment.keys = vec![key];
        deployment
    }

    /// A token that is good in every respect.
    pub(super) fn good(&self) -> String {
        self.draft().sign(&self.caller.key)
    }

    /// What a good token of the caller says.
    pub(super) fn draft(&self) -> Draft {
        self.draft_of(&self.caller)
    }

    /// What a good token of `caller` says.
    pub(super) fn draft_of(&self, caller: &OwnDeployment) -> Draft {
        let name = text(caller.issuer());
        let aud = [self.own.issuer(), &self.own.fingerprint().to_string()].map(text);
        Draft::new(
            &[
                ("alg", text("ES256")),
                ("typ", text("JWT")),
                ("kid", text(caller.key_id.as_str())),
            ],
            &[
                ("iss", name.clone()),
                ("sub", name),
                ("aud", format!("[{}]", aud.join(","))),
                ("iat", NOW.to_string()),
                ("exp", (NOW + 300).to_string()),
                ("jti", text("a-token")),
            ],
        )
    }

    /// A token of the caller after `change`.
    pub(super) fn token(&self, change: impl FnOnce(Draft) -> Draft) -> String {
        change(self.draft()).sign(&self.caller.key)
    }
}

fn revoked_key(key: &SigningKey) -> TrustedKey {
    let mut old = TrustedKey::new("old", key.verifying_key().clone());
    old.revoked = true;
    old
}

fn with_role(mut deployment: Deployment, role: &str) -> Deployment {
    deployment.roles = Roles::from_iter([Role::new(role).unwrap()]);
    deployment
}

/// Listens for a connection that must not come.
pub(super) struct Canary(TcpListener);

impl Canary {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.0.local_addr().unwrap())
    }

    /// Asserts that nothing connected.
    pub(super) fn was_left_alone(&self) {
        let visitor = self.0.accept().map(|(_, from)| from);
        assert_eq!(visitor.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
