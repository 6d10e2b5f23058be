use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::header::HEADER_MAX_BYTES;
use super::{Header, HeaderReader, Malformed, parse, v2};

fn at(text: &str) -> SocketAddr {
    text.parse().expect(text)
}

fn line(text: &str) -> Result<Option<(Header, usize)>, Malformed> {
    parse(format!("{text}\r\n").as_bytes())
}

/// A header of version 2 for a stream of the family that `block` is of.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = v2::SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((block.len() as u16).to_be_bytes());
    bytes.extend(block);
    bytes
}

fn addresses(source: SocketAddr) -> (u8, Vec<u8>) {
    let (port, to_port) = (source.port().to_be_bytes(), 1883u16.to_be_bytes());
    match source.ip() {
        IpAddr::V4(ip) => (0x11, [&ip.octets()[..], &[192, 0, 2, 1], &port, &to_port].concat()),
        IpAddr::V6(ip) => (0x21, [&ip.octets()[..], &[0; 16], &port, &to_port].concat()),
    }
}

fn item(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// A header that speaks for `source` and says `items` of it, `checked` with a sum of it all.
fn proxied(source: SocketAddr, items: &[u8], checked: bool) -> Vec<u8> {
    let (family, mut block) = addresses(source);
    block.extend(items);
    if !checked {
        return binary(1, family, &block);
    }
    block.extend(item(0x03, &[0; 4]));
    let mut bytes = binary(1, family, &block);
    let sum = crc32c::crc32c(&bytes);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn ssl(client: u8, verify: u32, names: &[&[u8]]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|name| item(0x22, name)).collect();
    item(0x20, &[&[client][..], &verify.to_be_bytes(), &item(0x21, b"TLSv1.3"), &names].concat())
}

fn common_name(header: &Header) -> Option<&str> {
    header.certificate.as_ref()?.common_name.as_deref()
}

#[test]
fn lines_of_text() {
    for (text, source) in [
        ("PROXY TCP4 192.0.2.9 192.0.2.1 56324 1883", Some("192.0.2.9:56324")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", Some("255.255.255.255:65535")),
        ("PROXY TCP4 192.0.2.9 192.0.2.1 0 0", Some("192.0.2.9:0")),
        ("PROXY TCP6 2001:DB8::9 ::1 4000 1883", Some("[2001:db8::9]:4000")),
        ("PROXY TCP6 ::ffff:192.0.2.9 ::ffff:192.0.2.1 4000 1883", Some("192.0.2.9:4000")),
        ("PROXY UNKNOWN", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535", None),
        ("PROXY UNKNOWN \u{0}\u{e9} anything", None),
    ] {
        let (header, length) = line(text).expect(text).expect(text);
        assert_eq!((header.source, length), (source.map(at), text.len() + 2), "{text}");
        assert_eq!(header.certificate, None);
    }
}

#[test]
fn lines_that_are_none() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
    for text in [
        "PROXY",
        "proxy TCP4 192.0.2.9 192.0.2.1 56324 1883",
        "PROXY ",
        "PROXY  TCP4 192.0.2.9 192.0.2.1 56324 1883",
        "PROXY TCP4  192.0.2.9 192.0.2.1 56324 1883",
        "PROXY TCP4 192.0.2.9 192.0.2.1 56324 1883 ",
        "PROXY TCP4 192.0.2.9 192.0.2.1 56324",
        "PROXY TCP4 192.0.2.9 192.0.2.1 56324 1883 1",
        "PROXY TCP4\t192.0.2.9 192.0.2.1 56324 1883",
        "PROXY TCP4 192.0.2.09 192.0.2.1 56324 1883",
        "PROXY TCP4 192.0.2.9 192.0.2 56324 1883",
        "PROXY TCP4 ::1 ::1 56324 1883",
        "PROXY TCP6 192.0.2.9 192.0.2.1 56324 1883",
        "PROXY TCP6 fe80::1%eth0 ::1 56324 1883",
        "PROXY TCP4 192.0.2.9 192.0.2.1 056324 1883",
        "PROXY TCP4 192.0.2.9 192.0.2.1 +5632 1883",
        "PROXY TCP4 192.0.2.9 192.0.2.1 65536 1883",
        "PROXY TCP4 192.0.2.9 192.0.2.1  1883",
        "PROXY TCP4 192.0.2.9 192.0.2.1 1 -1",
        "PROXY UDP4 192.0.2.9 192.0.2.1 56324 1883",
        "PROXY UNKNOWNS",
        "PROXY TCP4 192.0.2.9\u{0} 192.0.2.1 56324 1883",
        &long,
    ] {
        assert!(line(text).is_err(), "{text}");
    }
    assert!(parse(b"PROXY UNKNOWN\n").is_err());
    // Nobody who speaks something else has to say much of it.
    for other in [&b"\x10\x1a"[..], b"\x16\x03\x01", b"GET", b"PRI * HTTP/2.0", b"\r\nGET", b"\0"] {
        assert!(parse(&other[..1]).is_err() || parse(other).is_err(), "{other:?}");
    }
}

#[test]
fn the_longest_line_is_read_and_none_beyond_it_awaited() {
    let longest = format!("PROXY UNKNOWN {}", "f".repeat(91));
    assert_eq!(line(&longest).expect("read").expect("whole").1, 107);
    assert_eq!(parse(&longest.as_bytes()[..105]), Ok(None));
    assert!(parse(format!("{longest}ff").as_bytes()).is_err());
}

#[test]
fn binary_headers() {
    for source in ["192.0.2.9:56324", "[2001:db8::9]:4000"] {
        for checked in [false, true] {
            let bytes = proxied(at(source), &item(0x04, &[0; 7]), checked);
            let (header, length) = parse(&bytes).expect(source).expect(source);
            assert_eq!((header.source, length), (Some(at(source)), bytes.len()));
            assert_eq!(header.certificate, None);
        }
    }
    let mapped = parse(&proxied(at("[::ffff:192.0.2.9]:7"), &[], false)).expect("read").expect("whole");
    assert_eq!(mapped.0.source, Some(at("192.0.2.9:7")));
    // The proxy's own, whatever else is said; of no known family; of a socket of its machine.
    for bytes in [
        binary(0, 0x00, &[]),
        binary(0, 0xff, b"anything"),
        binary(0, 0x11, &addresses(at("192.0.2.9:1")).1),
        binary(1, 0x00, &[]),
        binary(1, 0x31, &[0; 216]),
    ] {
        assert_eq!(parse(&bytes), Ok(Some((Header::default(), bytes.len()))), "{bytes:x?}");
    }
}

#[test]
fn binary_headers_that_are_none() {
    let (family, block) = addresses(at("192.0.2.9:1"));
    let good = binary(1, family, &block);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let long = |items: &[u8]| proxied(at("192.0.2.9:1"), items, false);
    for (what, bytes) in [
        ("version 1", with(12, 0x11)),
        ("version 3", with(12, 0x31)),
        ("a command of the future", with(12, 0x22)),
        ("a datagram", with(13, 0x12)),
        ("an unknown family", with(13, 0x41)),
        ("a family without a protocol", with(13, 0x10)),
        ("too short for IPv6", with(13, 0x21)),
        ("too short for a path", binary(1, 0x31, &[0; 215])),
        ("no room for addresses", binary(1, 0x11, &block[..11])),
        ("half an item", long(&[0x04])),
        ("an item without its end", long(&[0x04, 0, 9, 1])),
        ("too long", binary(1, 0x11, &vec![0; HEADER_MAX_BYTES - 15])),
        ("a sum too short", long(&item(0x03, &[0; 3]))),
        ("a sum too long", long(&item(0x03, &[0; 5]))),
        ("two sums", proxied(at("192.0.2.9:1"), &item(0x03, &[0; 4]), true)),
        ("half of TLS", long(&item(0x20, &[7, 0, 0, 0]))),
        ("half an item of TLS", long(&item(0x20, &[7, 0, 0, 0, 0, 0x22, 0]))),
        ("two names", long(&ssl(7, 0, &[b"a", b"b"]))),
        ("TLS twice", long(&[ssl(7, 0, &[b"a"]), ssl(7, 0, &[b"b"])].concat())),
    ] {
        assert!(parse(&bytes).is_err(), "{what}");
    }
    // The length decides before the rest has come.
    assert!(parse(&binary(1, 0x11, &vec![0; HEADER_MAX_BYTES])[..16]).is_err());
    let longest = binary(0, 0x11, &vec![0; HEADER_MAX_BYTES - 16]);
    assert_eq!(parse(&longest), Ok(Some((Header::default(), HEADER_MAX_BYTES))));
}

#[test]
fn a_checksum_counts_for_every_byte() {
    let good = proxied(at("192.0.2.9:1"), &ssl(7, 0, &[b"device"]), true);
    assert!(parse(&good).is_ok_and(|whole| whole.is_some()));
    // Of another type, the sum is something else that is said.
    let type_of_sum = good.len() - 7;
    for at in (16..good.len()).filter(|at| *at != type_of_sum) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert_ne!(parse(&bytes), parse(&good), "byte {at}");
    }
}

#[test]
fn the_name_of_a_verified_certificate() {
    for (client, verify, names, expected) in [
        (0x07, 0, &[&b"device-7"[..]][..], Some("device-7")),
        (0x03, 0, &[b"device-7"], Some("device-7")),
        (0x05, 0, &["Dörte".as_bytes()], Some("Dörte")),
        (0x07, 1, &[b"device-7"], None),
        (0x07, u32::MAX, &[b"device-7"], None),
        (0x01, 0, &[b"device-7"], None),
        (0x06, 0, &[b"device-7"], None),
        (0x07, 0, &[], None),
        (0x07, 0, &[b""], None),
        (0x07, 0, &[b"ad\0min"], None),
        (0x07, 0, &[b"ad\nmin"], None),
        (0x07, 0, &[b"\xff"], None),
    ] {
        let (header, _) = parse(&proxied(at("192.0.2.9:1"), &ssl(client, verify, names), true))
            .expect("read")
            .expect("whole");
        assert_eq!(common_name(&header), expected, "{client:#x} {verify} {names:?}");
    }
}

/// Headers of every form, with what they say.
fn headers() -> impl Strategy<Value = (Vec<u8>, Header)> {
    let source = prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))),
    ];
    let name = prop::option::of("[a-zé]{1,40}");
    (source, name, any::<bool>(), any::<bool>()).prop_map(|(source, name, checked, text)| {
        let canonical = SocketAddr::new(source.ip().to_canonical(), source.port());
        if text {
            let (family, ip, port) = (if source.is_ipv4() { 4 } else { 6 }, source.ip(), source.port());
            let line = format!("PROXY TCP{family} {ip} {ip} {port} 1883\r\n");
            return (line.into_bytes(), Header { source: Some(canonical), certificate: None });
        }
        let items = name.as_ref().map(|name| ssl(7, 0, &[name.as_bytes()])).unwrap_or_default();
        let certificate = name.and_then(|name| crate::auth::Certificate::named(&name)).map(Into::into);
        (proxied(source, &items, checked), Header { source: Some(canonical), certificate })
    })
}

proptest! {
    /// However it comes, and whatever follows it.
    #[test]
    fn round_trip_in_pieces(
        (bytes, expected) in headers(),
        rest in prop::collection::vec(any::<u8>(), 0..20),
        sizes in prop::collection::vec(1usize..40, 1..8),
    ) {
        let stream = [&bytes[..], &rest].concat();
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&stream[..end]), Ok(None));
        }
        prop_assert_eq!(parse(&stream), Ok(Some((expected.clone(), bytes.len()))));
        let mut reader = HeaderReader::default();
        let (mut at, mut sizes) = (0, sizes.iter().cycle());
        loop {
            let end = stream.len().min(at + sizes.next().expect("endless"));
            match reader.read(&stream[at..end]) {
                Ok(None) => at = end,
                Ok(Some((header, length))) => {
                    prop_assert_eq!(header, expected);
                    prop_assert_eq!(at + length, bytes.len());
                    break;
                }
                Err(malformed) => prop_assert!(false, "{}", malformed),
            }
        }
    }

    /// No bytes are believed but whole headers, none make it wait for more than the longest.
    #[test]
    fn any_bytes(
        start in prop_oneof![Just(&b""[..]), Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(v2::SIGNATURE)],
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &rest].concat();
        if let Ok(Some((_, length))) = parse(&bytes) {
            prop_assert!(length <= bytes.len().min(HEADER_MAX_BYTES));
            prop_assert_eq!(parse(&bytes[..length - 1]), Ok(None));
        }
    }

    #[test]
    fn damaged_headers((mut bytes, _) in headers(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(None) = parse(&bytes) {
            bytes.resize(HEADER_MAX_BYTES, 0);
            prop_assert_ne!(parse(&bytes), Ok(None));
        }
    }
}
