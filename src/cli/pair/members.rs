//! Which modules are named, with which files and keys.

use std::path::{Path, PathBuf};

use super::{Arguments, Of};
use crate::admin::pairing::Member;
use crate::cli::input;
use crate::cli::output::{Exit, Failure};
use crate::diagnostic::redact;
use crate::jose::{KeyId, KeyMaterial, SigningKey, published};

pub(super) fn members(arguments: &Arguments) -> Result<[Member; 2], Failure> {
    let wrong = |what: String| Failure::new(Exit::Usage, what);
    let [one, other] = arguments.modules.as_slice() else {
        return Err(wrong(
            "two modules are paired; for one of them there is `--one-side`".to_owned(),
        ));
    };
    if one.module == other.module {
        let module = &one.module;
        return Err(wrong(format!(
            "both are called `{module}`; give them different types"
        )));
    }
    let named = arguments.name.iter().map(|of| &of.module);
    let mut named = named.chain(arguments.key.iter().map(|of| &of.module));
    if let Some(odd) = named.find(|name| **name != one.module && **name != other.module) {
        return Err(wrong(format!("`{odd}` is neither of the two modules")));
    }
    Ok([member(one, arguments)?, member(other, arguments)?])
}

pub(super) fn member(of: &Of<PathBuf>, arguments: &Arguments) -> Result<Member, Failure> {
    let name = arguments.name.iter().rfind(|name| name.module == of.module);
    let key = arguments.key.iter().rfind(|key| key.module == of.module);
    Ok(Member {
        module: of.module.clone(),
        path: settings_file(of)?,
        name: name.map(|name| name.value.clone()),
        key: key.map(|key| private_key(&key.value)).transpose()?,
    })
}

/// Returns the file that is named; one that is not there is made, and is not to be called by a key.
pub(super) fn settings_file(of: &Of<PathBuf>) -> Result<PathBuf, Failure> {
    let name = of.value.file_name().unwrap_or_default().to_string_lossy();
    if redact(&name) == name {
        return Ok(of.value.clone());
    }
    let module = &of.module;
    let what = format!("what stands after `{module}=` looks like a key, not like a file");
    let help = "name the module's file, such as `etc/application.properties`";
    Err(Failure::new(Exit::Usage, what).with_help(help))
}

fn private_key(path: &Path) -> Result<(SigningKey, KeyId), Failure> {
    let refused = |why: &str| {
        let file = input::name(path);
        Failure::new(
            Exit::Unreadable,
            format!("cannot use the key in {file}: {why}"),
        )
    };
    match input::key(path)? {
        (KeyMaterial::Private(key, _), _) if published(key.fingerprint()) => Err(refused(
            "it is printed in a public guide and protects nothing",
        )),
        (KeyMaterial::Private(key, kid), _) => {
            let kid = kid.unwrap_or_else(|| key.fingerprint().into());
            Ok((key, kid))
        }
        (KeyMaterial::Public(..), _) => Err(refused("it is a public key")),
    }
}
