use proptest::prelude::*;

use crate::net::websocket::{AllowedOrigin, OriginPolicy};

fn policy(listed: &[&str]) -> OriginPolicy {
    OriginPolicy(listed.iter().map(|origin| origin.parse().expect("an origin")).collect())
}

#[test]
fn without_a_list_a_page_may_talk_to_the_host_it_is_from() {
    let policy = policy(&[]);
    for (origin, host) in [
        ("https://chat.example.org", "chat.example.org"),
        ("https://chat.example.org", "chat.example.org:8084"),
        ("http://chat.example.org:8080", "chat.example.org:8083"),
        ("HTTP://Chat.Example.ORG", "chat.example.org"),
        ("https://192.0.2.7", "192.0.2.7:8083"),
        ("https://[2001:DB8::7]:1", "[2001:db8:0::7]:8083"),
        ("http://localhost:3000", "127.0.0.1:8083"),
        ("http://127.8.0.1", "localhost:8083"),
        ("http://[::1]:3000", "LOCALHOST"),
        ("capacitor://localhost", "127.0.0.1"),
    ] {
        assert!(policy.admits(origin, host), "{origin} at {host}");
    }
    for (origin, host) in [
        ("https://evil.example", "chat.example.org"),
        ("https://chat.example.org.evil.example", "chat.example.org"),
        ("https://xchat.example.org", "chat.example.org"),
        ("https://example.org", "chat.example.org"),
        ("https://chat.example.org@evil.example", "chat.example.org"),
        ("https://evil.example", "localhost"),
        ("https://localhost.evil.example", "localhost"),
        ("http://localhost", "chat.example.org"),
        ("http://chat.example.org", "127.0.0.1"),
        ("null", "null"),
        ("null", "localhost"),
        ("", ""),
        ("chat.example.org", "chat.example.org"),
        ("https://chat.example.org/", "chat.example.org"),
        ("https://chat.example.org https://evil.example", "chat.example.org"),
        ("https://chat.example.org:", "chat.example.org"),
        ("https://chat.example.org:65536", "chat.example.org"),
        ("https://chat.example.org:+1", "chat.example.org"),
        ("1s://chat.example.org", "chat.example.org"),
        ("https://[::1", "[::1]"),
        ("https://[x]", "[x]"),
        ("https://", ""),
    ] {
        assert!(!policy.admits(origin, host), "{origin} at {host}");
    }
}

#[test]
fn listed_origins_alone_count() {
    let listed = policy(&["https://chat.example.org", "http://app.example:8080", "capacitor://localhost"]);
    for (origin, admitted) in [
        ("https://chat.example.org", true),
        ("HTTPS://CHAT.example.org:443", true),
        ("http://chat.example.org", false),
        ("https://chat.example.org:8443", false),
        ("http://app.example:8080", true),
        ("http://app.example", false),
        ("capacitor://localhost", true),
        ("http://localhost", false),
        ("https://broker.example", false),
        ("null", false),
    ] {
        assert_eq!(listed.admits(origin, "broker.example"), admitted, "{origin}");
    }
    let any = policy(&["https://chat.example.org", "*"]);
    assert!(any.admits("null", "x") && any.admits("https://evil.example", "x"));
}

#[test]
fn what_can_be_listed() {
    for (written, shown) in [
        ("*", "*"),
        ("HTTPS://Chat.Example.org:443", "https://chat.example.org"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
    ] {
        assert_eq!(written.parse::<AllowedOrigin>().expect(written).to_string(), shown);
    }
    for wrong in [
        "",
        "null",
        "chat.example.org",
        "https://*.example.org",
        "https://a/b",
        "https://bücher.example",
        "wss://a",
    ] {
        let error = wrong.parse::<AllowedOrigin>().expect_err(wrong);
        assert!(error.contains("https://chat.example.org") && error.contains(wrong), "{error}");
    }
}

proptest! {
    #[test]
    fn any_texts(origin in "\\PC{0,30}", host in "\\PC{0,30}") {
        let _ = policy(&[]).admits(&origin, &host);
    }

    /// What is admitted by the default names the host of the request, or both are of this machine.
    #[test]
    fn nothing_but_the_host_is_admitted(a in "[a-c.]{1,4}", b in "[a-c.]{1,4}", port in 1u16..) {
        prop_assert_eq!(policy(&[]).admits(&format!("https://{a}"), &format!("{b}:{port}")), a == b);
    }
}
