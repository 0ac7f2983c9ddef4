//! Replicas of one DPM: their files say the same of its key, of the modules that it trusts, and of what it
//! accepts.

use crate::config::inspect::Inspected;
use crate::config::settings::{OwnKey, ReadDeployment, RegistryStore};
use crate::diagnostic::{Code, Finding, Severity};
use crate::properties::Sourced;
use crate::properties::name::uniform;
use crate::registry::AddressRules;

/// Returns `true` if both files are of one DPM: they have one name, and their engines are in one
/// etcd.
pub fn are_replicas(this: &Inspected, other: &Inspected) -> bool {
    let names = [this, other].map(|file| file.options.name.as_ref().map(|(name, _)| name));
    let stores = [this, other].map(|file| match &file.options.store {
        RegistryStore::Etcd(etcd) => Some(&etcd.endpoints),
        RegistryStore::Memory | RegistryStore::File(_) => None,
    });
    let ([Some(one), Some(two)], [Some(here), Some(there)]) = (names, stores) else {
        return false;
    };
    let all = here.iter().all(|endpoint| there.contains(endpoint));
    one.uniform() == two.uniform() && here.len() == there.len() && all
}

/// Reports what `this` says of keys, trust, names and limits and `other` does not; `is_first` of the two
/// files reports what both say.
pub fn check(this: &Inspected, other: &Inspected, is_first: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(own) = this.own.as_ref().filter(|_| is_first) {
        found.extend(own_key(this, other, own));
        found.extend(accepting(this, other, own));
    }
    for deployment in &this.deployments {
        let mut theirs = other.deployments.iter();
        let name = uniform(&deployment.name);
        match theirs.find(|known| uniform(&known.name) == name) {
            Some(there) => found.extend(differing(this, other, (deployment, there), is_first)),
            None => found.extend(deployment.keys.first().map(|key| {
                let message = format!("{other} does not trust {}", deployment.name);
                report(this, Code::Cs0401, &key.at, message)
            })),
        }
    }
    found
}

fn report(this: &Inspected, code: Code, at: &Sourced, message: String) -> Finding {
    let help = "replicas are copies of one file: copy the file of the right one to the others";
    let found = this.report(code, at, message, help);
    found.with_severity(Severity::Error)
}

/// The keys that the module itself has, now and next.
fn own_key(this: &Inspected, other: &Inspected, own: &OwnKey) -> Option<Finding> {
    let theirs = other.own.as_ref()?;
    let is_one = theirs.key.verifying_key() == own.key.verifying_key();
    if !is_one || theirs.key_id != own.key_id {
        let (here, there) = (&own.key_id, &theirs.key_id);
        let message = format!("this replica signs with `{here}`, and {other} with `{there}`");
        return Some(report(this, Code::Cs0401, &own.at, message));
    }
    let rotations = [this, other].map(|file| &file.options.rotation);
    let [here, there] = rotations.map(|rotation| {
        let next = rotation.next.as_ref();
        (next.map(|(key, _)| key.fingerprint()), &rotation.previous)
    });
    (here != there).then(|| {
        let message = format!("{other} has another next key, or other keys before this one");
        report(this, Code::Cs0401, &own.at, message)
    })
}

/// Its name to the letter, and what decides which calls and engines are taken.
fn accepting(this: &Inspected, other: &Inspected, own: &OwnKey) -> Vec<Finding> {
    let (here, there) = (&this.options, &other.options);
    let names = [here, there].map(|options| options.name.as_ref().map(|(name, _)| name));
    let differences = [
        (
            names[0] != names[1],
            Code::Cs0403,
            "another spelling of `countersign.deployment.name`",
        ),
        (
            here.replay != there.replay,
            Code::Cs0306,
            "another `countersign.token.replay`",
        ),
        (
            here.policy != there.policy,
            Code::Cs0306,
            "other times of tokens",
        ),
        (
            here.impersonation_role != there.impersonation_role,
            Code::Cs0303,
            "another impersonation role",
        ),
        (
            here.limits != there.limits,
            Code::Cs0306,
            "other limits of engines",
        ),
    ];
    let differing = differences.into_iter().filter(|(differs, ..)| *differs);
    let found =
        differing.map(|(_, code, what)| report(this, code, &own.at, format!("{other} has {what}")));
    found.collect()
}

/// Returns `true` if both files allow the same addresses for a deployment, each under its name there.
fn same_addresses(files: [(&Inspected, &str); 2]) -> bool {
    let [here, there] = files.map(|(file, name)| {
        let rules = file.options.addresses.get(name);
        rules.cloned().unwrap_or_default()
    });
    here.allow_low_ports == there.allow_low_ports
        && allows_all_of(&here, &there)
        && allows_all_of(&there, &here)
}

fn allows_all_of(one: &AddressRules, other: &AddressRules) -> bool {
    let mut theirs = other.allowed.iter();
    theirs.all(|address| one.allowed.contains(address))
}

/// One deployment as both files have it.
fn differing(
    this: &Inspected,
    other: &Inspected,
    (here, there): (&ReadDeployment, &ReadDeployment),
    is_first: bool,
) -> Vec<Finding> {
    let name = &here.name;
    let mut found = Vec::new();
    for key in &here.keys {
        let id = &key.trusted.key_id;
        let mut theirs = there.keys.iter().map(|key| &key.trusted);
        let (code, what) = match theirs.find(|known| known.key == key.trusted.key) {
            None => (Code::Cs0401, "does not trust this key"),
            Some(known) if known.key_id != *id => (Code::Cs0401, "has another name for this key"),
            Some(known) if known.revoked && !key.trusted.revoked => {
                (Code::Cs0402, "has this key as revoked")
            }
            Some(_) => continue,
        };
        let message = format!("{other} {what}, `{id}` of {name}");
        found.push(report(this, code, &key.at, message));
    }
    for (pin, at) in &here.pins {
        if there.pins.iter().all(|(known, _)| known != pin) {
            let message = format!("{other} does not pin this key, `{pin}` of {name}");
            found.push(report(this, Code::Cs0405, at, message));
        }
    }
    let both = here.deployment.as_ref().zip(there.deployment.as_ref());
    if let Some(((one, two), key)) = both.zip(here.keys.first()).filter(|_| is_first) {
        let differences = [
            (
                one.name != two.name,
                Code::Cs0403,
                "another spelling of its name",
            ),
            (one.module != two.module, Code::Cs0403, "another module"),
            (
                one.environment != two.environment,
                Code::Cs0403,
                "another environment",
            ),
            (one.roles != two.roles, Code::Cs0303, "other roles"),
            (
                one.single_use_tokens != two.single_use_tokens,
                Code::Cs0306,
                "another `single-use-tokens`",
            ),
            (
                !same_addresses([(this, &here.name), (other, &there.name)]),
                Code::Cs0306,
                "other `allowed-addresses` or `allow-low-ports`",
            ),
        ];
        for (_, code, what) in differences.into_iter().filter(|(differs, ..)| *differs) {
            let message = format!("{other} has {what} for {name}");
            found.push(report(this, code, &key.at, message));
        }
    }
    found
}
