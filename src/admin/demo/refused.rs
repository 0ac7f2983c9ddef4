//! Three calls that a DPM must refuse, and what it says.

use std::error::Error;
use std::sync::Arc;

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::admin::error::{Kind, Refused};
use crate::grpc::{Connection, ConnectionOptions, Module, Target, code_name, reason_of};
use crate::jose::{KeyId, SigningKey};
use crate::proto::identity::WhoAmIRequest;
use crate::proto::identity::identity_service_client::IdentityServiceClient;
use crate::token::{Reason, TokenIssuer};
use crate::trust::{OwnDeployment, TrustStore};

/// Calls `WhoAmI` at `address` with three tokens made from the key of `dpe`. Returns a line for each,
/// and whether each was refused for the reason that it must be.
pub(super) async fn calls(dpe: &Module, address: &Target) -> Result<(Vec<String>, bool), Refused> {
    let connection = Connection::open(address, ConnectionOptions::default()).await;
    let channel = connection.map_err(failed)?.channel();
    let mut client = IdentityServiceClient::new(channel);
    let (mut lines, mut held) = (Vec::new(), true);
    for (what, expected, token) in tokens(dpe).map_err(failed)? {
        let bearer = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut request = Request::new(WhoAmIRequest {});
        let bearer = bearer.map_err(|error| failed(error.into()))?;
        request.metadata_mut().insert("authorization", bearer);
        let (answer, reason) = match client.who_am_i(request).await {
            Ok(_) => ("accepted".to_owned(), None),
            Err(status) => {
                let reason = reason_of(&status);
                let shown = reason.map_or("no reason", Reason::as_str);
                (format!("{} {shown}", code_name(status.code())), reason)
            }
        };
        let is_expected = reason == Some(expected);
        let verdict = if is_expected { "ok" } else { "FAILED" };
        lines.push(format!("{what:<28} {answer:<36} {verdict}"));
        held &= is_expected;
    }
    Ok((lines, held))
}

fn failed(error: Box<dyn Error + Send + Sync>) -> Refused {
    Refused::new(Kind::Conflict, "cannot call the DPM").caused_by(error)
}

/// What is wrong with a token, the reason for which it must be refused, and the token.
type BadToken = (&'static str, Reason, String);

fn tokens(dpe: &Module) -> Result<[BadToken; 3], Box<dyn Error + Send + Sync>> {
    let trust = dpe.trust().load();
    let dpm = trust
        .deployments()
        .first()
        .ok_or("the demo's dpe trusts no deployment")?;
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
    Ok([
        (
            "token with one byte changed",
            Reason::SignatureInvalid,
            altered,
        ),
        (
            "key that was never paired",
            Reason::KeyUnknown,
            unpaired.expose().to_owned(),
        ),
        (
            "token for another module",
            Reason::AudienceMismatch,
            misdirected.expose().to_owned(),
        ),
    ])
}
