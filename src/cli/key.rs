//! `countersign key`: make, convert and name keys.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use zeroize::Zeroizing;

use super::change::not_written;
use super::input;
use super::output::{Answer, Console, Exit, Failure};
use crate::admin::WriteError;
use crate::admin::write::{Existing, Privacy, same_file, write};
use crate::jose::{KeyError, KeyId, KeyMaterial, PrivateJwk, PublicJwk, SigningKey, VerifyingKey};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new private key, as mkjwk writes it
    #[command(after_help = GEN)]
    Gen(Gen),
    /// Turn a key of any form (JWK, base64 of it, PEM, DER) into a JWK
    #[command(after_help = IMPORT)]
    Import(Import),
    /// Turn a key of any form into another
    #[command(after_help = EXPORT)]
    Export(Export),
    /// Print both names of a key
    #[command(after_help = FINGERPRINT)]
    Fingerprint {
        /// The key; `-` reads stdin
        file: PathBuf,
    },
}

const GEN: &str = "\
Examples:
  $ countersign key gen --out dpm.jwk --public-out dpm-public.jwk
  $ countersign key gen | countersign key fingerprint -";
const IMPORT: &str = "\
Examples:
  $ countersign key import ec256.pem --out dpm.jwk
  $ openssl ecparam -name prime256v1 -genkey -noout | countersign key import - --out dpm.jwk";
const EXPORT: &str = "\
Examples:
  $ countersign key export dpm.jwk --to public-jwk
  $ countersign key export dpm.jwk --to pem-spki --out dpm.pub
  $ countersign key export dpm.jwk --to base64 --out generator-key.txt";
const FINGERPRINT: &str = "\
Examples:
  $ countersign key fingerprint dpm.jwk
  $ countersign key fingerprint -o json dpm.pub";

#[derive(Args, Debug)]
pub(super) struct Gen {
    /// Where the private key goes, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where its public half goes
    #[arg(long, value_name = "FILE")]
    public_out: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(super) struct Import {
    /// The key; `-` reads stdin
    file: PathBuf,
    #[command(flatten)]
    destination: Destination,
}

#[derive(Args, Debug)]
pub(super) struct Export {
    /// The key; `-` reads stdin
    file: PathBuf,
    /// The form to write
    #[arg(long, value_enum, value_name = "FORM")]
    to: Form,
    #[command(flatten)]
    destination: Destination,
}

#[derive(Args, Debug)]
struct Destination {
    /// Where the result goes; stdout if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// The forms a key is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Form {
    /// JWK, with the private part if the key has one
    Jwk,
    /// JWK of the public half, on one line: what `content` holds
    PublicJwk,
    /// Base64 of the private JWK: what `generator.key` holds
    Base64,
    /// PKCS#8 PEM, `PRIVATE KEY`
    PemPkcs8,
    /// SEC1 PEM, `EC PRIVATE KEY`
    PemSec1,
    /// Public PEM, `PUBLIC KEY`
    PemSpki,
    /// PKCS#8 DER
    DerPkcs8,
    /// SEC1 DER
    DerSec1,
    /// Public DER
    DerSpki,
}

pub(super) fn run(command: Command, console: &Console) -> Answer {
    match command {
        Command::Gen(arguments) => generate(&arguments, console),
        Command::Import(arguments) => {
            let (key, _) = input::key(&arguments.file)?;
            note_kid(&key, console);
            let form = match key {
                KeyMaterial::Private(..) => Form::Jwk,
                KeyMaterial::Public(..) => Form::PublicJwk,
            };
            deliver(&encode(&key, form)?, &arguments.destination, console)
        }
        Command::Export(arguments) => {
            let (key, _) = input::key(&arguments.file)?;
            deliver(
                &encode(&key, arguments.to)?,
                &arguments.destination,
                console,
            )
        }
        Command::Fingerprint { file } => {
            let (key, _) = input::key(&file)?;
            note_kid(&key, console);
            name(key.verifying_key(), console)?;
            Ok(Exit::Done)
        }
    }
}

fn generate(arguments: &Gen, console: &Console) -> Answer {
    if let (Some(out), Some(public_out)) = (&arguments.out, &arguments.public_out)
        && same_file(out, public_out).map_err(|error| not_written(&error))?
    {
        let message = "`--out` and `--public-out` name one file";
        return Err(Failure::new(Exit::Usage, message)
            .with_help("the private key and its public half each need a file of their own"));
    }
    let existing = existing(arguments.force);
    let outputs = [&arguments.out, &arguments.public_out];
    for path in outputs.into_iter().flatten() {
        if existing == Existing::Refuse && path.symlink_metadata().is_ok() {
            return Err(not_written(&WriteError::Exists(path.clone())));
        }
    }
    let key = SigningKey::generate()
        .map_err(|error| Failure::caused(Exit::Bug, "cannot make a key", &error))?;
    let kid = KeyId::from(key.fingerprint());
    let encoded = Encoded::private_text(PrivateJwk::write_pretty(&key, &kid).expose());
    let destination = Destination {
        out: arguments.out.clone(),
        force: arguments.force,
    };
    if destination.out.is_none() {
        refuse_terminal(&encoded)?;
    }
    if let Some(path) = &arguments.public_out {
        let public = PublicJwk::write_pretty(key.verifying_key(), &kid) + "\n";
        write(path, public.as_bytes(), Privacy::Public, existing).map_err(|e| not_written(&e))?;
        console.say(&format!("wrote `{}` (public)", path.display()));
    }
    deliver(&encoded, &destination, console)?;
    if destination.out.is_some() {
        name(key.verifying_key(), console)?;
    }
    Ok(Exit::Done)
}

/// A key in the form that was asked for.
struct Encoded {
    bytes: Zeroizing<Vec<u8>>,
    privacy: Privacy,
    is_text: bool,
}

impl Encoded {
    fn private_text(text: &str) -> Self {
        Self::text(text, Privacy::Owner)
    }

    /// Text, made to end with its line.
    fn text(text: &str, privacy: Privacy) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + 1));
        bytes.extend_from_slice(text.trim_end().as_bytes());
        bytes.push(b'\n');
        Self {
            bytes,
            privacy,
            is_text: true,
        }
    }

    fn der(bytes: &[u8], privacy: Privacy) -> Self {
        Self {
            bytes: Zeroizing::new(bytes.to_vec()),
            privacy,
            is_text: false,
        }
    }
}

fn encode(material: &KeyMaterial, form: Form) -> Result<Encoded, Failure> {
    let public = material.verifying_key();
    let own_kid = || KeyId::from(public.fingerprint());
    let kid = material.kid().cloned().unwrap_or_else(own_kid);
    let encoded = match (material, form) {
        (_, Form::PublicJwk) => Encoded::text(&PublicJwk::write(public, &kid), Privacy::Public),
        (_, Form::PemSpki) => Encoded::text(&public.to_spki_pem(), Privacy::Public),
        (_, Form::DerSpki) => Encoded::der(public.to_spki_der(), Privacy::Public),
        (KeyMaterial::Private(key, _), form) => encode_private(key, &kid, form)
            .map_err(|error| Failure::caused(Exit::Bug, "cannot write the key", &error))?,
        (KeyMaterial::Public(..), Form::Jwk) => {
            Encoded::text(&PublicJwk::write_pretty(public, &kid), Privacy::Public)
        }
        (KeyMaterial::Public(..), _) => {
            return Err(Failure::new(
                Exit::Usage,
                "this form needs a private key, and the file holds a public one",
            )
            .with_help("`--to public-jwk`, `pem-spki` and `der-spki` are its public forms"));
        }
    };
    Ok(encoded)
}

fn encode_private(key: &SigningKey, kid: &KeyId, form: Form) -> Result<Encoded, KeyError> {
    Ok(match form {
        Form::Base64 => {
            let jwk = PrivateJwk::write(key, kid);
            let text = Zeroizing::new(BASE64_STANDARD.encode(jwk.expose()));
            Encoded::private_text(&text)
        }
        Form::PemPkcs8 => Encoded::private_text(key.to_pkcs8_pem()?.expose()),
        Form::PemSec1 => Encoded::private_text(key.to_sec1_pem()?.expose()),
        Form::DerPkcs8 => Encoded::der(key.to_pkcs8_der().expose(), Privacy::Owner),
        Form::DerSec1 => Encoded::der(key.to_sec1_der()?.expose(), Privacy::Owner),
        Form::Jwk | Form::PublicJwk | Form::PemSpki | Form::DerSpki => {
            Encoded::private_text(PrivateJwk::write_pretty(key, kid).expose())
        }
    })
}

/// Writes to the file, or to stdout where that is safe.
fn deliver(encoded: &Encoded, destination: &Destination, console: &Console) -> Answer {
    let Some(path) = destination
        .out
        .as_deref()
        .filter(|path| !input::is_stdin(path))
    else {
        refuse_terminal(encoded)?;
        console.answer(&*encoded.bytes)?;
        return Ok(Exit::Done);
    };
    let existing = existing(destination.force);
    write(path, &encoded.bytes, encoded.privacy, existing).map_err(|e| not_written(&e))?;
    let what = match encoded.privacy {
        Privacy::Owner | Privacy::Private => "private, for its owner alone",
        Privacy::Public => "public",
    };
    console.say(&format!("wrote `{}` ({what})", path.display()));
    Ok(Exit::Done)
}

fn refuse_terminal(encoded: &Encoded) -> Result<(), Failure> {
    let why = match encoded {
        _ if !Console::answer_is_seen() => return Ok(()),
        Encoded {
            privacy: Privacy::Owner,
            ..
        } => "a private key is not shown on a terminal",
        Encoded { is_text: false, .. } => "DER is not shown on a terminal",
        _ => return Ok(()),
    };
    Err(Failure::new(Exit::Usage, why).with_help("use `--out FILE`, or send it through a pipe"))
}

fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Refuse
    }
}

#[derive(Serialize)]
struct Names {
    fingerprint: String,
    rfc7638: String,
}

fn name(key: &VerifyingKey, console: &Console) -> Result<(), Failure> {
    let fingerprint = key.fingerprint().to_string();
    let rfc7638 = key.thumbprint();
    let text = format!(
        "fingerprint (SHA-256 of the public key; mkjwk's \"SHA-256\", a token's kid)  {fingerprint}\n\
         RFC 7638 thumbprint (what other JOSE tools print)                          {rfc7638}\n"
    );
    let names = Names {
        fingerprint,
        rfc7638,
    };
    console.reply(text, &names)
}

/// Remarks on a `kid` that is not the fingerprint.
fn note_kid(material: &KeyMaterial, console: &Console) {
    let key = material.verifying_key();
    let Some(kid) = material.kid() else { return };
    if kid.as_str() == key.fingerprint().to_string() {
        return;
    }
    let what = if kid.as_str() == key.thumbprint() {
        "its RFC 7638 thumbprint"
    } else {
        "another text than its fingerprint"
    };
    console.note(&format!("the key's `kid` is {what}: {}", quoted(kid)));
}

fn quoted(kid: &KeyId) -> String {
    crate::diagnostic::quote(kid.as_str())
}
