//! The filter lists of SUBSCRIBE and UNSUBSCRIBE: checked once, then read again lazily.

use super::reader::Reader;
use super::{DecodeError, QoS, ReasonCode, SubOptions, topic};

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// As the client wrote it, `$share/group/…` included.
    pub filter: &'a str,
    pub options: SubOptions,
}

/// The filters of a SUBSCRIBE, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeFilters<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// The filters of an UNSUBSCRIBE, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> SubscribeFilters<'a> {
    /// Checks the whole payload of a SUBSCRIBE; `v5` allows the options of 5.0.
    pub(super) fn check(bytes: &'a [u8], v5: bool) -> Result<Self, DecodeError> {
        let mut rest = Reader::new(bytes);
        let mut count = 0;
        while !rest.is_empty() {
            let text = filter(&mut rest)?;
            let options = SubOptions::from_byte(rest.u8()?, v5)?;
            if options.no_local && topic::parse_share(text).is_some() {
                // [MQTT-3.8.3-4]
                return Err(DecodeError::protocol("no local on a shared subscription"));
            }
            count += 1;
        }
        if count == 0 {
            // [MQTT-3.8.3-2]
            return Err(DecodeError::protocol("a SUBSCRIBE without topic filters"));
        }
        Ok(SubscribeFilters { bytes, count })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = SubscribeFilter<'a>> + use<'a> {
        let mut rest = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            let filter = rest.str().ok()?;
            let options = SubOptions::from_byte(rest.u8().ok()?, true).ok()?;
            Some(SubscribeFilter { filter, options })
        })
    }
}

impl<'a> Filters<'a> {
    /// Checks the whole payload of an UNSUBSCRIBE.
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = Reader::new(bytes);
        let mut count = 0;
        while !rest.is_empty() {
            filter(&mut rest)?;
            count += 1;
        }
        if count == 0 {
            // [MQTT-3.10.3-2]
            return Err(DecodeError::protocol("an UNSUBSCRIBE without topic filters"));
        }
        Ok(Filters { bytes, count })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut rest = Reader::new(self.bytes);
        std::iter::from_fn(move || rest.str().ok())
    }
}

fn filter<'a>(rest: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let text = rest.str()?;
    topic::valid_filter(text, usize::MAX)
        .map_err(|e| DecodeError::new(ReasonCode::TopicFilterInvalid, e.what()))?;
    Ok(text)
}

impl SubOptions {
    /// The subscription options byte of 5.0; for 3.x it is the requested QoS if only `qos` is set.
    pub const fn to_byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling & 3) << 4
    }

    /// Reads a subscription options byte [MQTT-3.8.3-5].
    ///
    /// # Errors
    /// QoS 3, retain handling 3, reserved bits; without `v5`, anything but a QoS.
    pub const fn from_byte(byte: u8, v5: bool) -> Result<Self, DecodeError> {
        let reserved = if v5 { 0xC0 } else { 0xFC };
        if byte & reserved != 0 {
            return Err(DecodeError::malformed("reserved bits in the subscription options"));
        }
        let Some(qos) = QoS::from_u8(byte & 3) else {
            return Err(DecodeError::protocol("QoS 3 in the subscription options"));
        };
        let retain_handling = byte >> 4 & 3;
        if retain_handling == 3 {
            return Err(DecodeError::protocol("retain handling 3"));
        }
        Ok(SubOptions { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }
}
