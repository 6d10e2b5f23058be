//! AUTH: enhanced authentication, here with SCRAM-SHA-256.

use cluster_tests::conformance::{Case, Outcome, PASSWORD, Site, USER, case};
use cluster_tests::mqtt::{
    AGAIN, CONTINUE, Client, Error, Packet, Prop, SCRAM, Scram, auth, disconnect, proof, prop,
};

use crate::messages::SOON;

pub const CASES: &[Case] = &[
    case("an exchange of AUTH packets precedes the CONNACK, all of the same method", exchange)
        .v5(&["3.15.2-1", "4.12.0-2", "4.12.0-3", "4.12.0-5", "3.1.4-6", "3.2.0-1"]),
    case("whoever does not prove to be the user is refused and closed", refused)
        .v5(&["4.12.0-4", "3.1.4-2", "4.13.2-1", "3.14.0-1"]),
    case("before CONNACK only AUTH and DISCONNECT may come", too_early).v5(&["3.1.2-30", "4.12.0-4"]),
    case("an AUTH of another method or another code is an error", wrong_auth).v5(&["4.12.0-3", "4.12.0-5"]),
    case("flags on AUTH are an error", flags).v5(&["3.15.1-1"]),
    case("a client may prove itself again", again).v5(&["4.12.1-1", "4.12.0-2", "3.15.2-1"]),
    case("a client that fails to prove itself again is closed", failed_again).v5(&["4.12.1-2"]),
    case("AUTH keeps to the client's Maximum Packet Size", fits).v5(&["3.15.2-2", "3.15.2-3", "3.1.2-24"]),
];

fn challenged(at: &Site) -> Result<(Client, Scram, Vec<u8>), Error> {
    Client::challenged(at.near(), &at.options(), USER, PASSWORD)
}

fn exchange(at: &Site) -> Outcome {
    let (mut client, mut scram, challenge) = challenged(at)?;
    client.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge))?;
    client.await_connack()?;
    assert_eq!(client.granted.text(prop::AUTHENTICATION_METHOD), Some(SCRAM));
    let Some(Prop::Bytes(last)) = client.granted.get(prop::AUTHENTICATION_DATA) else {
        panic!("no last word")
    };
    assert!(scram.trusts(last));
    client.ping()?;
    Ok(())
}

fn refused(at: &Site) -> Outcome {
    for (user, password) in [(USER, "wrong"), ("nobody", PASSWORD)] {
        let refused = Client::connect_user(at.near(), &at.options(), user, password);
        assert!(matches!(refused, Err(Error::Refused(0x87))), "{user}: {:?}", refused.err());
    }
    let (mut client, mut scram, challenge) = Client::challenged(at.near(), &at.options(), USER, "wrong")?;
    client.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge))?;
    assert!(matches!(client.ending(SOON)?, Error::Refused(0x87)));
    assert!(matches!(client.ending(SOON)?, Error::Closed));
    Ok(())
}

fn too_early(at: &Site) -> Outcome {
    for bytes in [&[0xc0, 0][..], &[0x30, 4, 0, 1, b'a', 0], &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0]] {
        let (mut client, ..) = challenged(at)?;
        client.send(bytes)?;
        assert!(matches!(client.ending(SOON)?, Error::Refused(0x82)), "{bytes:02x?}");
    }
    let (mut client, ..) = challenged(at)?;
    client.send(&disconnect(at.version, 0))?;
    assert!(matches!(client.ending(SOON)?, Error::Closed));
    Ok(())
}

fn wrong_auth(at: &Site) -> Outcome {
    for (bytes, code) in [
        (auth(CONTINUE, &proof("other", b"x")), 0x8c),
        (auth(AGAIN, &proof(SCRAM, b"x")), 0x82),
        (auth(0, &proof(SCRAM, b"x")), 0x82),
        (vec![0xf0, 0], 0x82),
    ] {
        let (mut client, ..) = challenged(at)?;
        client.send(&bytes)?;
        let ended = client.ending(SOON)?;
        assert!(matches!(ended, Error::Refused(found) if found == code), "{bytes:02x?}: {ended}");
    }
    Ok(())
}

fn flags(at: &Site) -> Outcome {
    for flags in 1..16 {
        let mut client = Client::connect_user(at.near(), &at.options(), USER, PASSWORD)?;
        let mut bytes = auth(AGAIN, &proof(SCRAM, b"n,,n=x,r=y"));
        bytes[0] |= flags;
        client.send(&bytes)?;
        at.assert_ends(client, &[0x81])?;
    }
    Ok(())
}

fn again(at: &Site) -> Outcome {
    let topic = at.topic();
    let mut client = Client::connect_user(at.near(), &at.options(), USER, PASSWORD)?;
    client.subscribe(&[(&topic, 1)])?;
    for _ in 0..3 {
        client.authenticate_again(USER, PASSWORD)?;
        client.publish(&topic, "still", 1)?;
        assert_eq!(at.recv(&mut client)?.text(), "still");
    }
    Ok(())
}

fn failed_again(at: &Site) -> Outcome {
    let mut client = Client::connect_user(at.near(), &at.options(), USER, PASSWORD)?;
    let mut scram = Scram::new(USER, "wrong");
    client.send_auth(AGAIN, SCRAM, &scram.first())?;
    let challenge = client.await_challenge()?;
    client.send_auth(CONTINUE, SCRAM, &scram.answer(&challenge))?;
    at.assert_ends(client, &[0x87])?;
    // The method has to stay the same.
    let mut client = Client::connect_user(at.near(), &at.options(), USER, PASSWORD)?;
    client.send_auth(AGAIN, "other", b"x")?;
    at.assert_ends(client, &[0x82, 0x8c])?;
    Ok(())
}

fn fits(at: &Site) -> Outcome {
    let options = at.options().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(300));
    let mut client = Client::connect_user(at.near(), &options, USER, PASSWORD)?;
    client.authenticate_again(USER, PASSWORD)?;
    assert!(client.largest_packet() <= 300);
    // A challenge that does not fit is not sent.
    let options = at.options().prop(prop::MAXIMUM_PACKET_SIZE, Prop::U32(40));
    let mut client = Client::open(at.near(), at.version)?;
    let mut asking = options.clone();
    asking.props.0.extend(proof(SCRAM, &Scram::new(USER, PASSWORD).first()).0);
    client.send(&cluster_tests::mqtt::connect(&asking))?;
    match client.packet(SOON) {
        Err(Error::Closed) | Ok(Packet::ConnAck { code: 0x80.., .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(client.largest_packet() <= 40);
    Ok(())
}
