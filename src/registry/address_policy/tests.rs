use std::collections::HashMap;

use super::*;

const HOST: &str = "dpe.example.org";

/// Judges `addresses`, which `host` stands for, at port 8532, for a registrant elsewhere.
fn judged(policy: &AddressPolicy, host: &str, addresses: &[&str]) -> Result<(), String> {
    judged_from(policy, false, &address(host, 8532), addresses)
}

fn judged_from(
    policy: &AddressPolicy,
    over_loopback: bool,
    address: &EngineAddress,
    resolved: &[&str],
) -> Result<(), String> {
    let destination = Destination {
        deployment: "dpe-dev",
        address,
        over_loopback,
    };
    let resolved: Vec<IpAddr> = resolved.iter().map(|ip| ip.parse().unwrap()).collect();
    let judged = policy.check(&destination, &resolved, |ip| ip == ip_of("10.0.0.1"));
    judged.map_err(|refusal| refusal.to_string())
}

/// The refusal of loopback for an engine elsewhere.
fn loopback(address: IpAddr) -> String {
    format!("{address} is loopback, and the registration did not come over loopback")
}

/// The refusal of a low port.
fn low_port(port: u16) -> String {
    format!(
        "port {port} is below 1024, and `countersign.deployments.dpe-dev.allow-low-ports` is not set in the registry's file"
    )
}

fn address(host: &str, port: u16) -> EngineAddress {
    EngineAddress::new(host, port.into()).unwrap()
}

fn ip_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn listening(own: &[&str]) -> AddressPolicy {
    let own = own.iter().map(|own| own.parse().unwrap()).collect();
    AddressPolicy::new(own, HashMap::new())
}

fn ruled(allowed: &[&str], allow_low_ports: bool) -> AddressPolicy {
    let allowed = allowed
        .iter()
        .map(|text| AllowedAddress::parse(text).unwrap());
    let rules = AddressRules {
        allowed: allowed.collect(),
        allow_low_ports,
    };
    AddressPolicy::new(Vec::new(), HashMap::from([("dpe-dev".to_owned(), rules)]))
}

#[test]
fn addresses_that_are_no_single_host_are_refused() {
    use RefusedRange::{
        Broadcast, Embedded, LinkLocal, LocalTranslation, Metadata, Multicast, Unspecified,
    };
    let inner = |text: &str| Embedded(text.parse().unwrap());

    for (text, range) in [
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("::", Unspecified),
        ("::ffff:0.0.0.0", Unspecified),
        ("255.255.255.255", Broadcast),
        ("::ffff:255.255.255.255", Broadcast),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("::ffff:224.0.0.1", Multicast),
        ("ff02::1", Multicast),
        ("ff0e::1", Multicast),
        ("169.254.0.0", LinkLocal),
        ("169.254.255.255", LinkLocal),
        ("::ffff:169.254.1.1", LinkLocal),
        ("fe80::1", LinkLocal),
        ("febf:ffff::1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:a9fe:a9fe", Metadata),
        ("100.100.100.200", Metadata),
        ("192.0.0.192", Metadata),
        ("168.63.129.16", Metadata),
        ("fd00:ec2::254", Metadata),
        ("fd20:ce::254", Metadata),
        ("::169.254.169.254", inner("169.254.169.254")),
        ("::127.0.0.1", inner("127.0.0.1")),
        ("::2", inner("0.0.0.2")),
        ("::ffff:0:169.254.169.254", inner("169.254.169.254")),
        ("64:ff9b::169.254.169.254", inner("169.254.169.254")),
        ("64:ff9b::127.0.0.1", inner("127.0.0.1")),
        ("64:ff9b::0.0.0.0", inner("0.0.0.0")),
        ("2002:a9fe:a9fe::1", inner("169.254.169.254")),
        ("2002:7f00:1::", inner("127.0.0.1")),
        ("2002:e000:1::1", inner("224.0.0.1")),
        (
            "2001:0:4136:e378:8000:63bf:5601:5601",
            inner("169.254.169.254"),
        ),
        ("64:ff9b:1::a00:1", LocalTranslation),
    ] {
        for over_loopback in [false, true] {
            let policy = AddressPolicy::default();
            let judged = judged_from(&policy, over_loopback, &address(HOST, 8532), &[text]);

            let address = ip_of(text).to_canonical();
            let refused = format!("{address} is {range}");
            assert_eq!(judged, Err(refused), "{text}");
        }
    }
}

#[test]
fn every_other_address_may_be_dialled() {
    for text in [
        "10.0.0.5",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "198.18.0.1",
        "8.8.8.8",
        "223.255.255.255",
        "240.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "1.0.0.0",
        "::ffff:10.0.0.5",
        "::10.0.0.5",
        "64:ff9b::10.0.0.5",
        "64:ff9b:2::7f00:1",
        "2002:a00:5::1",
        "2001:db8::1",
        "2001:db8::7f00:1",
        "2a00:1450::1",
        "fd00::1",
        "fec0::1",
        "fe7f::1",
    ] {
        assert_eq!(
            judged(&AddressPolicy::default(), HOST, &[text]),
            Ok(()),
            "{text}"
        );
    }
}

#[test]
fn loopback_is_for_registrants_over_loopback_alone() {
    for text in ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"] {
        let policy = AddressPolicy::default();

        let elsewhere = judged(&policy, "localhost", &[text]);
        let here = judged_from(&policy, true, &address("localhost", 8532), &[text]);

        let canonical = ip_of(text).to_canonical();
        assert_eq!(elsewhere, Err(loopback(canonical)), "{text}");
        assert_eq!(here, Ok(()), "{text}");
    }
}

#[test]
fn ports_below_1024_are_refused_unless_allowed() {
    for port in [1, 22, 25, 80, 443, 1023] {
        let judge = |policy: &AddressPolicy| {
            judged_from(policy, false, &address(HOST, port), &["10.0.0.5"])
        };
        assert_eq!(judge(&AddressPolicy::default()), Err(low_port(port)));
        assert_eq!(judge(&ruled(&[], true)), Ok(()), "{port}");
    }
    for port in [1024, 6379, 65_535] {
        let judged = judged_from(
            &AddressPolicy::default(),
            false,
            &address(HOST, port),
            &["10.0.0.5"],
        );
        assert_eq!(judged, Ok(()), "{port}");
    }
}

#[test]
fn port_is_judged_also_where_the_name_stands_for_nothing() {
    let low = judged_from(&AddressPolicy::default(), false, &address(HOST, 22), &[]);

    assert_eq!(low, Err(low_port(22)));
}

#[test]
fn rules_of_one_deployment_are_not_anothers() {
    let rules = HashMap::from([(
        "dpe-other".to_owned(),
        AddressRules {
            allowed: vec![AllowedAddress::parse("192.168.0.0/16").unwrap()],
            allow_low_ports: true,
        },
    )]);
    let policy = AddressPolicy::new(Vec::new(), rules);

    assert_eq!(judged(&policy, HOST, &["10.0.0.5"]), Ok(()));
    let low = judged_from(&policy, false, &address(HOST, 22), &["10.0.0.5"]);
    assert_eq!(low, Err(low_port(22)));
}

#[test]
fn own_address_and_port_are_refused() {
    // Listening at, dialled, refused.
    for (own, dialled, refused) in [
        (&["10.0.0.9:8532"][..], "10.0.0.9", true),
        (&["10.0.0.9:8532"], "::ffff:10.0.0.9", true),
        (&["[::ffff:10.0.0.9]:8532"], "10.0.0.9", true),
        (&["10.0.0.9:8531"], "10.0.0.9", false),
        (&["10.0.0.9:8532"], "10.0.0.8", false),
        (&["10.0.0.9:8531", "10.0.0.9:8532"], "10.0.0.9", true),
        (&["127.0.0.1:8532"], "127.0.0.1", true),
        (&["127.0.0.1:8532"], "127.0.0.2", false),
        (&["[::1]:8532"], "::1", true),
        // Every address of this machine; 10.0.0.1 is one.
        (&["0.0.0.0:8532"], "10.0.0.1", true),
        (&["0.0.0.0:8532"], "10.0.0.2", false),
        (&["0.0.0.0:8531"], "10.0.0.1", false),
        (&["0.0.0.0:8532"], "127.0.0.2", true),
        (&["[::]:8532"], "10.0.0.1", true),
        (&["[::]:8532"], "::1", true),
    ] {
        let judged = judged_from(&listening(own), true, &address(HOST, 8532), &[dialled]);

        let own_address = SocketAddr::new(ip_of(dialled).to_canonical(), 8532);
        let expected = if refused {
            Err(format!(
                "{own_address} is where the registry itself listens"
            ))
        } else {
            Ok(())
        };
        assert_eq!(judged, expected, "{own:?} {dialled}");
    }
}

#[test]
fn name_with_one_forbidden_address_is_refused_in_any_order() {
    for addresses in [
        &["10.0.0.5", "169.254.169.254"][..],
        &["169.254.169.254", "10.0.0.5"],
        &["10.0.0.5", "10.0.0.6", "::ffff:169.254.169.254"],
    ] {
        let refused = judged(&AddressPolicy::default(), HOST, addresses);

        assert_eq!(
            refused,
            Err("169.254.169.254 is the metadata address of a cloud".to_owned()),
            "{addresses:?}"
        );
    }
    let here = judged(&AddressPolicy::default(), HOST, &["10.0.0.5", "::1"]);
    assert_eq!(here, Err(loopback(ip_of("::1"))));
}

#[test]
fn listed_addresses_narrow_what_may_be_dialled() {
    let policy = ruled(&["10.1.0.0/16", "dpe.example.org", "fd00::/8"], false);

    for (host, addresses) in [
        ("other.example.org", &["10.1.2.3"][..]),
        ("10.1.2.3", &["10.1.2.3"]),
        ("other.example.org", &["10.1.2.3", "fd00::1"]),
        ("DPE.example.org", &["203.0.113.1"]),
        ("dpe.example.org", &["203.0.113.1", "10.1.0.1"]),
    ] {
        assert_eq!(judged(&policy, host, addresses), Ok(()), "{host}");
    }
    for (host, addresses, address) in [
        ("other.example.org", &["10.2.0.1"][..], "10.2.0.1"),
        ("other.example.org", &["10.1.0.1", "10.2.0.1"], "10.2.0.1"),
        ("dpe.example.org.evil.org", &["203.0.113.1"], "203.0.113.1"),
        ("2001:db8::1", &["2001:db8::1"], "2001:db8::1"),
    ] {
        let refused = format!(
            "{address} is not among `countersign.deployments.dpe-dev.allowed-addresses` of the registry's file"
        );
        assert_eq!(judged(&policy, host, addresses), Err(refused), "{host}");
    }
}

#[test]
fn listed_addresses_widen_nothing() {
    let policy = ruled(&["0.0.0.0/0", "::/0", "localhost"], false);

    let link_local = judged(&policy, HOST, &["169.254.1.1"]);
    let here = judged(&policy, "localhost", &["127.0.0.1"]);

    assert_eq!(link_local, Err("169.254.1.1 is link-local".to_owned()));
    assert_eq!(here, Err(loopback(ip_of("127.0.0.1"))));
}

#[test]
fn engine_of_this_machine_may_name_each_of_its_addresses_but_no_listener() {
    let policy = listening(&["0.0.0.0:8531", "127.0.0.1:8080"]);
    for (port, own, from_here) in [
        (8532, "10.0.0.1", Ok(())),
        (8532, "127.0.0.1", Ok(())),
        (8080, "10.0.0.1", Ok(())),
        (8531, "10.0.0.1", Err(())),
        (8531, "127.0.0.1", Err(())),
        (8080, "127.0.0.1", Err(())),
    ] {
        let judged = [false, true].map(|is_here| {
            let address = address(HOST, port);
            let judged = judged_from(&policy, is_here, &address, &[own, "10.0.0.5"]);
            judged.map_err(drop)
        });

        assert_eq!(judged, [Err(()), from_here], "{own}:{port}");
    }
}

#[test]
fn refusals_say_the_rule_and_the_setting() {
    let text = |policy: &AddressPolicy, port, resolved: &str| {
        let host = address(HOST, port);
        let refused = judged_from(policy, false, &host, &[resolved]);
        refused.unwrap_err()
    };
    let none = AddressPolicy::default();

    for (text, expected) in [
        (
            text(&none, 22, "10.0.0.5"),
            "port 22 is below 1024, and `countersign.deployments.dpe-dev.allow-low-ports` is not set in the registry's file",
        ),
        (text(&none, 8532, "fe80::1"), "fe80::1 is link-local"),
        (
            text(&none, 8532, "64:ff9b::a9fe:a9fe"),
            "64:ff9b::a9fe:a9fe is a way to 169.254.169.254, which is the metadata address of a cloud",
        ),
        (
            text(&none, 8532, "::127.0.0.1"),
            "::7f00:1 is a way to 127.0.0.1, which is loopback",
        ),
        (
            text(&none, 8532, "127.0.0.1"),
            "127.0.0.1 is loopback, and the registration did not come over loopback",
        ),
        (
            text(&none, 8532, "10.0.0.1"),
            "10.0.0.1 is the registry's own machine, and the registration did not come from there",
        ),
        (
            text(&listening(&["10.0.0.9:8532"]), 8532, "10.0.0.9"),
            "10.0.0.9:8532 is where the registry itself listens",
        ),
        (
            text(&ruled(&["10.1.0.0/16"], false), 8532, "10.0.0.5"),
            "10.0.0.5 is not among `countersign.deployments.dpe-dev.allowed-addresses` of the registry's file",
        ),
    ] {
        assert_eq!(text, expected);
    }
}

#[test]
fn networks_hold_the_addresses_of_their_prefix() {
    // Network, an address within, an address without.
    for (network, within, without) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
        ("10.1.2.2/31", "10.1.2.3", "10.1.2.4"),
        ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("::/0", "2001:db8::1", "203.0.113.9"),
        ("fd00::1", "fd00::1", "fd00::2"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
    ] {
        let listed = AllowedAddress::parse(network).unwrap();
        let holds = |address: &str| listed.matches("a", address.parse().unwrap());

        assert!(holds(within), "{network} {within}");
        assert!(!holds(without), "{network} {without}");
    }
}

#[test]
fn hosts_are_compared_without_case_and_whole() {
    let host = AllowedAddress::parse("DPE.Example.org").unwrap();
    let address = "10.0.0.1".parse().unwrap();

    assert!(host.matches("dpe.example.ORG", address));
    for other in [
        "example.org",
        "dpe.example.org.evil.org",
        "xdpe.example.org",
    ] {
        assert!(!host.matches(other, address), "{other}");
    }
}

#[test]
fn other_texts_list_nothing() {
    for text in [
        "",
        " ",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.0/255.0.0.0",
        "::/129",
        "10.0.0",
        "10",
        "0x7f.1",
        "*.example.org",
        "a b",
        "example.org/8",
        "-a",
        "a-",
        "http://a",
        "[::1]",
        "fe80::1%eth0",
    ] {
        assert_eq!(AllowedAddress::parse(text), None, "{text}");
    }
}
