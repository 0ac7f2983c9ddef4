//! Which method asks for what. A method without a rule is not served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::server::NamedService;

use crate::identity::{DeploymentName, ModuleType, Role, ServiceIdentity};
use crate::token::{Reason, Refusal};

/// What a method asks of its caller.
#[derive(Clone)]
pub struct Rule {
    pub(super) everyone: bool,
    pub(super) own_module: bool,
    is_route: bool,
    condition: Arc<dyn Fn(&ServiceIdentity) -> bool + Send + Sync>,
    /// What is said of a caller that does not meet it.
    lacking: Arc<str>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("everyone", &self.everyone)
            .field("own_module", &self.own_module)
            .field("lacking", &self.lacking)
            .finish_non_exhaustive()
    }
}

impl Rule {
    /// Everyone may call, without a token.
    ///
    /// Probes carry no token: `grpc.health.v1.Health/Check` and `Watch` need this rule. `serve`
    /// adds it.
    pub fn everyone() -> Self {
        Self {
            everyone: true,
            ..Self::any_identity()
        }
    }

    /// Any trusted deployment may call.
    pub fn any_identity() -> Self {
        Self::asking(|_| true, "")
    }

    /// A trusted deployment with `role` may call.
    pub fn role(role: Role) -> Self {
        Self::any_role([role])
    }

    /// A trusted deployment with one of `roles` may call; without any, no deployment may.
    pub fn any_role(roles: impl IntoIterator<Item = Role>) -> Self {
        let wanted: Vec<_> = roles.into_iter().collect();
        let names: Vec<_> = wanted.iter().map(|role| format!("`{role}`")).collect();
        let lacking = match names.as_slice() {
            [role] => format!("lacks the role {role}"),
            several => format!("lacks each of the roles {}", several.join(", ")),
        };
        let has_one = move |caller: &ServiceIdentity| {
            let roles = caller.roles();
            wanted.iter().any(|role| roles.contains(role))
        };
        Self::asking(has_one, &lacking)
    }

    /// The trusted deployment that is called `name` may call.
    pub fn deployment(name: DeploymentName) -> Self {
        let lacking = format!("is not deployment `{name}`");
        Self::asking(move |caller| caller.id() == name.as_str(), &lacking)
    }

    /// A trusted deployment of the module type `module` may call.
    pub fn module(module: ModuleType) -> Self {
        let lacking = format!("is not of the module `{module}`");
        Self::asking(move |caller| *caller.module() == module, &lacking)
    }

    /// A trusted deployment may call where `condition` is true of its identity. A panic in it
    /// refuses the call.
    pub fn when(condition: impl Fn(&ServiceIdentity) -> bool + Send + Sync + 'static) -> Self {
        Self::asking(
            condition,
            "does not meet the condition of the method's rule",
        )
    }

    /// Also the module itself may call, over loopback, with a token that it issued to itself.
    #[must_use]
    pub fn or_own_module(self) -> Self {
        Self {
            own_module: true,
            ..self
        }
    }

    fn asking(
        condition: impl Fn(&ServiceIdentity) -> bool + Send + Sync + 'static,
        lacking: &str,
    ) -> Self {
        Self {
            everyone: false,
            own_module: false,
            is_route: false,
            condition: Arc::new(condition),
            lacking: lacking.into(),
        }
    }

    /// Checks the caller of a method. Where the condition panics, the call is refused like one
    /// whose handler does.
    pub(super) fn check(&self, identity: &ServiceIdentity) -> Result<(), Refusal> {
        if (self.condition)(identity) {
            return Ok(());
        }
        let detail = format!("{identity} {}", self.lacking);
        Err(Refusal::new(Reason::RoleMissing, detail))
    }
}

/// The rules of a server: default deny.
///
/// A rule names a method, `/package.Service/Method`, or all methods of a service,
/// `/package.Service/*`; the method's own rule wins. To a verified caller a method without a rule
/// answers `UNIMPLEMENTED`, as if it were not served; to anyone else `UNAUTHENTICATED`.
#[derive(Clone, Debug, Default)]
pub struct MethodRules {
    /// By the path of a method, or the name of a service, which does not begin with `/`.
    rules: HashMap<String, Rule>,
    /// The descriptors that rules have to be for, if there are any; and their methods.
    sets: Vec<Vec<u8>>,
    described: Option<BTreeMap<String, &'static str>>,
}

impl MethodRules {
    /// Starts with no rule: nothing may be called.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Starts with no rule, and accepts rules only for the methods that `sets` describe. Each is an
    /// encoded `FileDescriptorSet`. Metrics then know how each method streams, and reflection shows
    /// its service.
    ///
    /// # Errors
    ///
    /// When one is not a `FileDescriptorSet`.
    pub fn described(sets: &[&[u8]]) -> Result<Self, RuleError> {
        Ok(Self {
            described: Some(method_paths(sets)?),
            sets: sets.iter().map(|set| set.to_vec()).collect(),
            ..Self::default()
        })
    }

    /// Adds the rule for `path`: a method, or `/package.Service/*`.
    ///
    /// # Errors
    ///
    /// When no call can have this path, no descriptor has it where there are some, or it has a rule
    /// already.
    pub fn allow(self, path: &str, rule: Rule) -> Result<Self, RuleError> {
        let (service, method) = parts(path)?;
        find(self.described.as_ref(), path, service, method)?;
        if self.rules.contains_key(&key(service, method)) {
            return Err(twice(path));
        }
        Ok(self.with(service, method, rule))
    }

    /// Adds the rule for all methods of the service that `S` serves, such as
    /// `GreeterServiceServer<Greeter>`; it replaces one that was there.
    #[must_use]
    pub fn allow_service<S: NamedService>(self, rule: Rule) -> Self {
        self.with(S::NAME, "*", rule)
    }

    /// Adds the rule for a route that is not gRPC, such as `/metrics`.
    ///
    /// # Errors
    ///
    /// When `path` is not absolute, has a `*` or a query, or has a rule already.
    pub fn allow_http(mut self, path: &str, rule: Rule) -> Result<Self, RuleError> {
        check_route(path)?;
        let is_route = true;
        match self
            .rules
            .insert(path.to_owned(), Rule { is_route, ..rule })
        {
            Some(_) => Err(twice(path)),
            None => Ok(self),
        }
    }

    /// Adds the rule for `method`, or for all with `*`, of `service`.
    pub(crate) fn with(mut self, service: &str, method: &str, rule: Rule) -> Self {
        self.rules.insert(key(service, method), rule);
        self
    }

    /// Returns the rule for `path`, the whole `:path` of a call.
    ///
    /// A path with a query has no rule: routers ignore the query, so a service's rule must not
    /// replace the rule of the method that they would call.
    pub(super) fn find(&self, path: &str) -> Option<&Rule> {
        if path.contains('?') {
            return None;
        }
        self.rules.get(path).or_else(|| {
            let (service, _) = path.strip_prefix('/')?.rsplit_once('/')?;
            self.rules.get(service)
        })
    }

    /// Returns `true` if `path` is a route that is not gRPC.
    pub(super) fn is_route(&self, path: &str) -> bool {
        self.find(path).is_some_and(|rule| rule.is_route)
    }

    /// Returns the services that have rules.
    pub(crate) fn services(&self) -> Vec<String> {
        let all = self.rules.keys().filter_map(|key| match parts(key) {
            Ok((service, _)) => Some(service.to_owned()),
            Err(_) => (!key.starts_with('/')).then(|| key.clone()),
        });
        let sorted: BTreeSet<_> = all.collect();
        sorted.into_iter().collect()
    }

    /// Adds the rules of `other`.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self
    }

    /// Returns the descriptors that it was made with, encoded.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &[u8]> {
        self.sets.iter().map(Vec::as_slice)
    }

    /// Returns the methods that they describe: their paths, and how they stream.
    pub(super) fn methods_described(&self) -> impl Iterator<Item = (&String, &&'static str)> {
        self.described.iter().flatten()
    }

    /// Returns the methods that have a rule of their own.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let paths = self.rules.keys().map(String::as_str);
        paths.filter(|path| path.starts_with('/'))
    }
}

fn key(service: &str, method: &str) -> String {
    match method {
        "*" => service.to_owned(),
        _ => format!("/{service}/{method}"),
    }
}

fn twice(path: &str) -> RuleError {
    RuleError(format!("`{path}` has a rule already; keep one of the two"))
}

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

#[cfg(test)]
mod tests {
    use crate::identity::{ModuleType, Roles};

    use super::*;

    #[test]
    fn method_rule_wins_over_its_services() {
        let role = Role::new("ADMIN").unwrap();
        let rules = MethodRules::deny_all()
            .allow("/a.B/*", Rule::any_identity())
            .unwrap()
            .allow("/a.B/Delete", Rule::role(role.clone()))
            .unwrap();
        let found = |path| format!("{:?}", rules.find(path).unwrap());

        assert_eq!(found("/a.B/Get"), format!("{:?}", Rule::any_identity()));
        assert_eq!(found("/a.B/Delete"), format!("{:?}", Rule::role(role)));
    }

    #[test]
    fn near_miss_of_a_path_finds_no_rule() {
        let rules = MethodRules::deny_all()
            .allow("/a.B/Get", Rule::everyone())
            .unwrap();

        for path in [
            "/a.B/get",
            "//a.B/Get",
            "/a.B/Get/",
            "/a.B/../a.B/Get",
            "/a.B/%47et",
            "*",
            "",
        ] {
            assert!(rules.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn path_with_a_query_has_no_rule_of_its_service() {
        let rules = MethodRules::deny_all()
            .allow("/a.B/*", Rule::everyone())
            .unwrap()
            .allow("/a.B/Get", Rule::any_identity())
            .unwrap();

        for path in ["/a.B/Get?", "/a.B/Get?x", "/a.B/?Get", "/a.B/Get?/../Get"] {
            assert!(rules.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn role_is_compared_without_case() {
        let rule = Rule::role(Role::new("IMPERSONATION").unwrap());
        let module = ModuleType::new("dpe").unwrap();
        let lower = Roles::from_iter([Role::new("impersonation").unwrap()]);

        assert!(
            rule.check(&ServiceIdentity::new(module.clone(), "dpe-dev", lower))
                .is_ok()
        );
        let none = ServiceIdentity::new(module, "dpe-dev", Roles::default());
        assert_eq!(rule.check(&none).unwrap_err().reason, Reason::RoleMissing);
    }

    #[test]
    fn rule_that_can_never_match_is_an_error() {
        for path in [
            "a.B/Get",
            "/a.B",
            "/*",
            "/",
            "",
            "/a.*/Get",
            "/*/Get",
            "/a.B/G*",
            "/a.B/Get/",
            "//a.B/Get",
            "/a.B/Get?x",
            "/a.B/ Get",
            "/a.B//Get",
            "/a.B/*/Get",
        ] {
            let error = MethodRules::deny_all().allow(path, Rule::any_identity());
            let text = error.unwrap_err().to_string();
            let expected = format!("`{path}` is not the path of a method");
            assert!(text.starts_with(&expected), "{text}");
        }
        for path in ["metrics", "/me*", "/m?x", ""] {
            let error = MethodRules::deny_all().allow_http(path, Rule::everyone());
            let text = error.unwrap_err().to_string();
            let expected = format!("`{path}` is not the path of a route");
            assert!(text.starts_with(&expected), "{text}");
        }
        let rules = MethodRules::deny_all().allow("/a.B/Get", Rule::everyone());
        let twice = rules.unwrap().allow("/a.B/Get", Rule::any_identity());
        assert_eq!(twice.unwrap_err(), super::twice("/a.B/Get"));
    }

    #[test]
    fn method_that_no_descriptor_has_is_named_with_the_nearest() {
        let rules = MethodRules::described(&[crate::proto::FILE_DESCRIPTOR_SET]).unwrap();
        let service = "/countersign.identity.v1.IdentityService";

        let typo = rules
            .clone()
            .allow(&format!("{service}/whoami"), Rule::everyone());

        let text = typo.unwrap_err().to_string();
        assert!(
            text.contains(&format!("did you mean `{service}/WhoAmI`?")),
            "{text}"
        );
        for method in ["WhoAmI", "*"] {
            let path = format!("{service}/{method}");
            assert!(
                rules.clone().allow(&path, Rule::everyone()).is_ok(),
                "{path}"
            );
        }
        let unread = MethodRules::described(&[b"no"]).unwrap_err().to_string();
        assert!(unread.contains("FileDescriptorSet"), "{unread}");
    }

    #[test]
    fn rules_by_deployment_module_roles_and_predicate_decide() {
        let role = |name| Role::new(name).unwrap();
        let module = |name| ModuleType::new(name).unwrap();
        let name = |name| DeploymentName::new(name).unwrap();
        let caller = ServiceIdentity::new(module("dpe"), "dpe-dev", Roles::from_iter([role("A")]));

        for (rule, allowed) in [
            (Rule::any_identity(), true),
            (Rule::any_role([role("B"), role("A")]), true),
            (Rule::any_role([role("B"), role("C")]), false),
            (Rule::any_role([]), false),
            (Rule::deployment(name("dpe-dev")), true),
            (Rule::deployment(name("ledger-dev")), false),
            (Rule::module(module("dpe")), true),
            (Rule::module(module("dpm")), false),
            (Rule::when(|caller| caller.id().starts_with("dpe")), true),
            (Rule::when(|caller| caller.id().is_empty()), false),
        ] {
            let judged = rule.check(&caller);
            assert_eq!(judged.is_ok(), allowed, "{rule:?}: {judged:?}");
        }
    }
}
