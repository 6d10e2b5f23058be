//! Topic names and filters.

use cluster_tests::conformance::{Case, Outcome, Site, case};

use crate::messages::{frame, string};

pub const CASES: &[Case] = &[
    case("wildcards match whole levels, # also its parent", wildcards)
        .v3(&["4.7.1-2", "4.7.1-3", "3.3.2-3"])
        .v5(&["4.7.1-1", "4.7.1-2", "3.3.2-3"]),
    case("a filter that begins with a wildcard does not match topics that begin with $", dollar)
        .v3(&["4.7.2-1"])
        .v5(&["4.7.2-1"]),
    case("names are compared as they are, without any normalisation", as_they_are)
        .v3(&["4.7.3-4", "1.5.3-3"])
        .v5(&["4.7.3-4", "1.5.4-3"]),
    case("a topic may have 65,535 bytes", longest).v3(&["4.7.3-3"]).v5(&["4.7.3-3"]),
    case("a topic name needs a character and may have no wildcard, no U+0000 and only UTF-8", bad_names)
        .v3(&["4.7.1-1", "4.7.3-1", "4.7.3-2", "3.3.2-1", "3.3.2-2", "1.5.3-1", "1.5.3-2"])
        .v5(&["4.7.0-1", "4.7.3-1", "4.7.3-2", "3.3.2-1", "3.3.2-2", "1.5.4-1", "1.5.4-2"]),
];

fn wildcards(at: &Site) -> Outcome {
    // Relative to a topic of the case's own: the filter, what it matches, what it does not.
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("/#", &["", "/", "/a", "/a/b", "//"], &["x"]),
        ("/+", &["/", "/a", "/ "], &["", "/a/b", "//"]),
        ("/+/", &["/a/", "//"], &["/a", "/", "/a/b"]),
        ("/a/#", &["/a", "/a/", "/a/b/c"], &["/ab", "/b", "/A"]),
        ("/+/b", &["/a/b", "//b"], &["/b", "/a/a/b", "/a/b/"]),
        ("/+/+/#", &["/a/b", "/a/b/c", "//", "/a/"], &["/a", ""]),
        ("/a", &["/a"], &["/a/", "/A", "/a/b", "//a"]),
    ];
    let mut publisher = at.client()?;
    for (filter, matching, others) in rows {
        let base = at.topic();
        let mut subscriber = at.subscriber(&format!("{base}{filter}"), 1)?;
        for name in matching.iter().chain(*others) {
            publisher.publish(&format!("{base}{name}"), name, 1)?;
        }
        let found = at.received(&mut publisher, &mut subscriber)?;
        let found: Vec<_> = found.iter().map(|m| m.topic.strip_prefix(&base).expect("the base")).collect();
        assert_eq!(found, *matching, "{filter}");
    }
    Ok(())
}

fn dollar(at: &Site) -> Outcome {
    let base = at.topic();
    let name = format!("${base}/x");
    let level = base.split_once('/').expect("two levels").1;
    let mut wild = at.subscriber("#", 1)?;
    let mut plus = at.subscriber(&format!("+/{level}/x"), 1)?;
    let mut exact = at.subscriber(&name, 1)?;
    let mut below = at.subscriber(&format!("${base}/#"), 1)?;
    let mut publisher = at.client()?;
    publisher.publish(&name, "special", 1)?;
    publisher.publish(&format!("{base}/x"), "common", 1)?;
    assert_eq!(at.recv(&mut exact)?.text(), "special");
    assert_eq!(at.recv(&mut below)?.text(), "special");
    assert_eq!(at.recv(&mut plus)?.text(), "common");
    assert!(at.received(&mut publisher, &mut plus)?.is_empty());
    let everything = at.received(&mut publisher, &mut wild)?;
    assert!(everything.iter().all(|m| !m.topic.starts_with('$')));
    assert!(everything.iter().any(|m| m.topic == format!("{base}/x")));
    Ok(())
}

fn as_they_are(at: &Site) -> Outcome {
    let base = at.topic();
    let names = [
        "é",
        "e\u{301}",
        "E\u{301}",
        "É",
        "\u{feff}",
        "\u{feff}a",
        "a\u{feff}",
        "a",
        "A",
        " a",
        "a ",
        "//",
        "/",
        "\u{10ffff}",
        "\u{fffe}",
        "\u{1}",
        "%2F",
        ".",
        "..",
        "a/..",
        "straße",
        "STRASSE",
        "\u{2028}",
    ];
    let names: Vec<String> = names.iter().map(|name| format!("{base}/{name}")).collect();
    let mut publisher = at.client()?;
    let mut subscriber = at.far_client()?;
    for chosen in &names {
        subscriber.subscribe(&[(chosen, 1)])?;
        for name in &names {
            publisher.publish(name, name, 1)?;
        }
        let found: Vec<_> =
            at.received(&mut publisher, &mut subscriber)?.into_iter().map(|m| m.topic).collect();
        assert_eq!(found, std::slice::from_ref(chosen));
        subscriber.unsubscribe(&[chosen])?;
    }
    Ok(())
}

fn longest(at: &Site) -> Outcome {
    let base = at.topic();
    let longest = format!("{base}{}", "x".repeat(65_535 - base.len()));
    let mut subscriber = at.subscriber(&longest, 1)?;
    let mut wild = at.subscriber(&format!("{}/+", base.split_once('/').expect("two levels").0), 1)?;
    let mut publisher = at.client()?;
    publisher.publish(&longest, "long", 1)?;
    publisher.retain(&longest, "kept", 1)?;
    assert_eq!(at.recv(&mut subscriber)?.topic, longest);
    let seen = at.received(&mut publisher, &mut wild)?;
    assert!(seen.iter().any(|m| m.topic == longest && m.text() == "long"));
    let mut later = at.subscriber(&longest, 1)?;
    assert_eq!(at.recv(&mut later)?.text(), "kept");
    publisher.retain(&longest, "", 1)?;
    Ok(())
}

fn bad_names(at: &Site) -> Outcome {
    let names: &[&[u8]] = &[
        b"",
        b"#",
        b"+",
        b"a/#",
        b"a/+/b",
        b"a#",
        b"a\0b",
        b"\xff",
        b"a\xc3",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
    ];
    for name in names {
        for qos in 0..=2_u8 {
            let id: &[u8] = if qos > 0 { &[0, 1] } else { &[] };
            let properties: &[u8] = if at.is_v5() { &[0] } else { &[] };
            let mut client = at.client()?;
            client.send(&frame(0x30 | qos << 1, &[&string(name), id, properties]))?;
            at.assert_ends(client, &[0x81, 0x82, 0x90])?;
        }
    }
    Ok(())
}
