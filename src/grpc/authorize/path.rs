//! The path of a method, and what is wrong with one that no call can have.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};

/// Why a rule is not accepted: it could never apply, or it applies already.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(pub(super) String);

crate::failure::debug_as_text!(RuleError);

/// Returns the service and the method, which may be `*`, of `path`.
pub(super) fn parts(path: &str) -> Result<(&str, &str), RuleError> {
    let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    let whole =
        parts.filter(|(service, method)| is_name(service) && (*method == "*" || is_name(method)));
    whole.ok_or_else(|| {
        RuleError(format!(
            "`{path}` is not the path of a method; write `/package.Service/Method` or `/package.Service/*`"
        ))
    })
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

/// Checks the path of a route that is not gRPC.
pub(super) fn check_route(path: &str) -> Result<(), RuleError> {
    if path.starts_with('/') && !path.contains(['*', '?', '#']) {
        return Ok(());
    }
    Err(RuleError(format!(
        "`{path}` is not the path of a route; write one that begins with `/`, without `*`, `?` and `#`"
    )))
}

/// Returns the methods that `sets` describe: their paths, and how they stream.
pub(in crate::grpc) fn method_paths(
    sets: &[&[u8]],
) -> Result<BTreeMap<String, &'static str>, RuleError> {
    let mut paths = BTreeMap::new();
    for set in sets {
        let set = FileDescriptorSet::decode(*set).map_err(|_invalid| {
            RuleError("what is given is not an encoded `FileDescriptorSet`".to_owned())
        })?;
        for file in &set.file {
            for service in &file.service {
                let name = match file.package() {
                    "" => service.name().to_owned(),
                    package => format!("{package}.{}", service.name()),
                };
                let methods = service.method.iter();
                paths.extend(
                    methods.map(|method| (format!("/{name}/{}", method.name()), kind(method))),
                );
            }
        }
    }
    Ok(paths)
}

fn kind(method: &MethodDescriptorProto) -> &'static str {
    match (method.client_streaming(), method.server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// Finds `path` among what is `described`, if anything is.
pub(super) fn find(
    described: Option<&BTreeMap<String, &'static str>>,
    path: &str,
    service: &str,
    method: &str,
) -> Result<(), RuleError> {
    let start = format!("/{service}/");
    let Some(paths) = described else {
        return Ok(());
    };
    if paths.contains_key(path)
        || (method == "*" && paths.keys().any(|path| path.starts_with(&start)))
    {
        return Ok(());
    }
    let similar = paths
        .keys()
        .map(|other| (strsim::jaro_winkler(path, other), other));
    let nearest = similar.max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = nearest.map_or_else(String::new, |(_, path)| format!("; did you mean `{path}`?"));
    Err(RuleError(format!("no descriptor has `{path}`{hint}")))
}
