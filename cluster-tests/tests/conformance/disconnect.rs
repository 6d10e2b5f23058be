//! DISCONNECT, and how connections end.

use cluster_tests::conformance::{Case, Outcome, Site, case};
use cluster_tests::mqtt::{Client, Error, Packet, Prop, disconnect, prop, publish};

use crate::messages::{SOON, message};

pub const CASES: &[Case] = &[
    case("DISCONNECT is answered by closing, and by nothing else", closes)
        .v3(&["3.14.4-1"])
        .v5(&["3.14.4-2", "3.14.4-1"]),
    case("what follows DISCONNECT is not processed", nothing_after).v3(&["3.14.4-2"]).v5(&["3.14.4-1"]),
    case("flags on DISCONNECT are an error", flags)
        .v3(&["3.14.1-1", "2.2.2-1", "2.2.2-2"])
        .v5(&["3.14.1-1", "2.1.3-1"]),
    case("a malformed DISCONNECT is an error", malformed).v3(&["4.8.0-1"]).v5(&["3.14.2-1", "4.13.1-1"]),
    case("every form of DISCONNECT ends the connection well", forms).v5(&["3.14.2-1"]),
    case("a DISCONNECT of the broker keeps to the client's Maximum Packet Size", fits)
        .v5(&["3.14.2-3", "3.14.2-4", "3.1.2-24"]),
    case("after its DISCONNECT the broker sends nothing and closes", broker_closes)
        .v5(&["3.14.4-1", "3.14.4-2", "4.13.2-1", "4.13.1-1"]),
];

fn closes(at: &Site) -> Outcome {
    let mut client = at.client()?;
    client.send(&disconnect(at.version, 0))?;
    assert!(matches!(client.packet(SOON), Err(Error::Closed)));
    Ok(())
}

fn nothing_after(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut subscriber = at.subscriber(&topic, 0)?;
    let publish = publish(at.version, &message(&topic, "x", 0, 0));
    let mut client = at.client()?;
    client.send(&[disconnect(at.version, 0), publish].concat())?;
    assert!(matches!(client.packet(SOON), Err(Error::Closed)));
    assert_eq!(at.received(&mut at.client()?, &mut subscriber)?, []);
    Ok(())
}

fn flags(at: &Site) -> Outcome {
    for first in [0xe1, 0xe2, 0xe4, 0xe8] {
        let mut client = at.client()?;
        client.send(&[first, 0])?;
        at.assert_ends(client, &[0x81])?;
    }
    Ok(())
}

fn malformed(at: &Site) -> Outcome {
    let rows: &[&[u8]] = if at.is_v5() {
        // Codes that are not for clients or not at all, and properties that are not for them.
        &[
            &[0xe0, 1, 0x05],
            &[0xe0, 1, 0x01],
            &[0xe0, 2, 0, 1],
            &[0xe0, 3, 0, 0, 0],
            &[0xe0, 7, 0, 4, 0x11, 0, 0, 0, 1],
            &[0xe0, 12, 0, 10, 0x11, 0, 0, 0, 0, 0x11, 0, 0, 0, 0],
            &[0xe0, 5, 0, 3, 0x21, 0, 1],
        ]
    } else {
        &[&[0xe0, 1, 0], &[0xe0, 2, 0, 0]]
    };
    for bytes in rows {
        let mut client = at.client()?;
        client.send(bytes)?;
        match client.ending(SOON)? {
            Error::Disconnected(0x81 | 0x82) if at.is_v5() => {}
            Error::Closed if !at.is_v5() => {}
            other => panic!("{bytes:02x?}: {other}"),
        }
    }
    Ok(())
}

fn forms(at: &Site) -> Outcome {
    let rows: &[&[u8]] = &[
        &[0xe0, 0],
        &[0xe0, 1, 0],
        &[0xe0, 2, 0, 0],
        &[0xe0, 1, 0x80],
        &[0xe0, 1, 0x93],
        &[0xe0, 6, 0, 4, 0x1f, 0, 1, b'x'],
        &[0xe0, 9, 0, 7, 0x26, 0, 1, b'a', 0, 1, b'b'],
    ];
    for bytes in rows {
        let mut client = at.client()?;
        client.send(bytes)?;
        let ended = client.packet(SOON);
        assert!(matches!(ended, Err(Error::Closed)), "{bytes:02x?}: {ended:?}");
    }
    Ok(())
}

fn fits(at: &Site) -> Outcome {
    let said = |client: &mut Client| match client.packet(SOON)? {
        Packet::Disconnect { code: 0x81, props } => Ok(props.text(prop::REASON_STRING).map(str::to_owned)),
        other => Err(Error::Protocol(format!("{other:?} for a DISCONNECT"))),
    };
    let mut client = at.client()?;
    client.send(&[0xc1, 0])?;
    assert!(said(&mut client)?.is_some_and(|text| text.contains("flags")));
    let options = at.options().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(40));
    let mut client = Client::connect(at.near(), &options)?;
    client.send(&[0xc1, 0])?;
    assert_eq!(said(&mut client)?, None);
    assert!(client.largest_packet() <= 40, "{} bytes", client.largest_packet());
    Ok(())
}

fn broker_closes(at: &Site) -> Outcome {
    let mut client = at.client()?;
    client.send(&[0xc1, 0, 0xc0, 0, 0xc0, 0])?;
    let packet = client.packet(SOON)?;
    assert!(matches!(packet, Packet::Disconnect { code: 0x81, .. }), "{packet:?}");
    assert!(matches!(client.packet(SOON), Err(Error::Closed)));
    Ok(())
}
