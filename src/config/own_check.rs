//! What a module says of itself, against what its peers make of it.

use crate::diagnostic::{Code, Severity};
use crate::properties::name::uniform;
use crate::token::Policy;

use super::deployments::ReadDeployment;
use super::options::Options;
use super::read::Reader;
use super::view::{Part, finding};

pub(super) const LIFETIME: &str = "ataccama.authentication.internal.jwt.generator.token-expiration";
const NAME: &str = "countersign.deployment.name";

/// Reports an own name that is a peer's too, and tokens that peers refuse.
pub(super) fn check(reader: &mut Reader<'_>, options: &Options, deployments: &[ReadDeployment]) {
    if let Some((name, at)) = &options.name
        && let Some(peer) = deployments
            .iter()
            .find(|peer| uniform(&peer.name) == uniform(name.as_str()))
    {
        let message =
            format!("the module's own name `{name}` is also that of a deployment it trusts");
        let found = finding(reader.view(), Code::Cs0304, at, Part::Value, message);
        reader.findings.push(found.with_key(NAME).with_help(format!(
            "write the name that the peers give this module; `{}` is a peer here",
            peer.name
        )));
    }
    let accepted = Policy::default().max_lifetime();
    let lifetime = options.policy.lifetime();
    if lifetime > accepted
        && let Some(at) = reader.text(LIFETIME, &[])
    {
        let message = format!(
            "tokens would live {} s; peers accept {} s at most, if they say nothing else",
            lifetime.as_secs(),
            accepted.as_secs()
        );
        let found = reader.finding(Code::Cs0306, &at, message);
        let help = format!(
            "write a number up to {}, or raise `countersign.token.max-lifetime` of every peer",
            accepted.as_secs()
        );
        reader.findings.push(
            found
                .with_severity(Severity::Warning)
                .with_key(LIFETIME)
                .with_help(help),
        );
    }
}
