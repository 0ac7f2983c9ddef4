//! Three calls that a DPM must refuse, and what it says.

use std::fmt;
use std::sync::Arc;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use super::DemoError;
use crate::grpc::{Connection, ConnectionOptions, Module, Target, code_name, reason_of};
use crate::jose::{KeyId, SigningKey};
use crate::proto::identity::WhoAmIRequest;
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::token::{Reason, TokenIssuer};
use crate::trust::{OwnDeployment, TrustStore};

/// A call that was made, and the answer.
pub(super) struct Refused {
    what: &'static str,
    expected: Reason,
    answer: Result<(), Status>,
}

impl Refused {
    /// Tells whether the answer is the refusal that it must be.
    pub(super) fn as_expected(&self) -> bool {
        self.answer.as_ref().err().and_then(reason_of) == Some(self.expected)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.as_expected() { "ok" } else { "FAILED" };
        let answer = match &self.answer {
            Ok(()) => "accepted".to_owned(),
            Err(status) => {
                let reason = reason_of(status).map_or("no reason", Reason::as_str);
                format!("{} {reason}", code_name(status.code()))
            }
        };
        write!(f, "{:<28} {answer:<36} {verdict}", self.what)
    }
}

/// Calls `WhoAmI` at `address` with three tokens made from the key of `dpe`.
pub(super) async fn calls(dpe: &Module, address: &Target) -> Result<Vec<Refused>, DemoError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| DemoError::Call(error);
    let connection = Connection::open(address, ConnectionOptions::default()).await;
    let channel = connection.map_err(failed)?.channel();
    let mut client = IdentityServiceClient::new(channel);
    let tokens = tokens(dpe).map_err(failed)?;
    let mut refused = Vec::new();
    for BadToken {
        what,
        expected,
        bearer,
    } in tokens
    {
        let mut request = Request::new(WhoAmIRequest {});
        request.metadata_mut().insert("authorization", bearer);
        let answer = client.who_am_i(request).await.map(drop);
        refused.push(Refused {
            what,
            expected,
            answer,
        });
    }
    Ok(refused)
}

struct BadToken {
    what: &'static str,
    expected: Reason,
    bearer: MetadataValue<Ascii>,
}

fn tokens(dpe: &Module) -> Result<[BadToken; 3], Box<dyn std::error::Error + Send + Sync>> {
    let trust = dpe.trust().load();
    let dpm = trust
        .deployments()
        .first()
        .ok_or("the demo's dpe trusts nobody")?;
    let good = dpe.issuer().issue(dpm)?;
    let (signed, signature) = good
        .expose()
        .rsplit_once('.')
        .ok_or("a token has three parts")?;
    // Not the last character, whose low bits carry nothing.
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let altered = format!(
        "{signed}.{flipped}{}",
        signature.get(1..).unwrap_or_default()
    );

    let key = SigningKey::generate()?;
    let key_id = KeyId::from(key.fingerprint());
    let stranger = OwnDeployment {
        key,
        key_id,
        ..OwnDeployment::clone(&dpe.own())
    };
    let stranger = Arc::new(TrustStore::alone(stranger));
    let issuer = TokenIssuer::new(stranger, dpe.policy(), Arc::clone(dpe.clock()));
    let unpaired = issuer.issue(dpm)?;

    let audience = ["dpm-elsewhere".to_owned()];
    let misdirected = dpe.issuer().issue_for(&audience, dpe.policy().lifetime())?;
    let bad = |what, expected, token: &str| -> Result<BadToken, _> {
        let bearer = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        bearer.map(|bearer| BadToken {
            what,
            expected,
            bearer,
        })
    };
    Ok([
        bad(
            "token with one byte changed",
            Reason::SignatureInvalid,
            &altered,
        )?,
        bad(
            "key that was never paired",
            Reason::KeyUnknown,
            unpaired.expose(),
        )?,
        bad(
            "token for another module",
            Reason::AudienceMismatch,
            misdirected.expose(),
        )?,
    ])
}
