//! Keys, and rendezvous hashing: the same on every machine and in every version, in integers.

use std::cmp::Ordering;

/// FNV-1a, stirred.
pub fn key_of(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    stir(hash)
}

/// The same in all lives of a node.
pub fn key_of_node(node: u64) -> u64 {
    stir(node ^ 0x6e6f_6465)
}

/// The last steps of SplitMix64: every bit of the input moves half of the output's.
pub(super) fn stir(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The bid of a slot for a message; the highest wins. A slot of weight `w` bids as the highest of
/// `w` slots of weight 1 would, so it wins `w` times as often, and a change of its weight moves
/// only messages to or from it: among u = hash / 2⁶⁴ it is the lowest −log₂(u) / w.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bid {
    hash: u64,
    weight: u32,
    /// −log₂(u), in 2⁻³² units; only worked out where weights are not all 1.
    cost: u64,
}

impl Bid {
    pub(super) fn new(message: u64, slot: u64, weight: u32, weighted: bool) -> Self {
        let hash = stir(message ^ slot.rotate_left(32)) ^ slot;
        let hash = stir(hash.wrapping_add(0x9e37_79b9_7f4a_7c15));
        Self { hash, weight, cost: if weighted { cost(hash) } else { 0 } }
    }

    /// The higher bid first.
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        let own = u128::from(self.cost) * u128::from(other.weight);
        let others = u128::from(other.cost) * u128::from(self.weight);
        own.cmp(&others).then(other.hash.cmp(&self.hash))
    }
}

/// −log₂(hash / 2⁶⁴) in 2⁻³² units, by squaring: each step yields one more binary digit.
fn cost(hash: u64) -> u64 {
    const DIGITS: u32 = 32;
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    // In [1, 2), in 2⁻⁶³ units.
    let mut x = hash << zeros;
    let mut log = u64::from(63 - zeros);
    for _ in 0..DIGITS {
        let square = (u128::from(x) * u128::from(x)) >> 63;
        let carry = square >> 64 != 0;
        x = if carry { (square >> 1) as u64 } else { square as u64 };
        log = (log << 1) | u64::from(carry);
    }
    (64 << DIGITS) - log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_the_logarithm() {
        for hash in [1, 3, 1 << 20, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, 0xdead_beef_0123_4567] {
            let exact = 64.0 - ((hash | 1) as f64).log2();
            let found = cost(hash) as f64 / f64::from(1_u32 << 31) / 2.0;
            assert!((exact - found).abs() < 1e-6, "{hash}: {found} for {exact}");
        }
    }

    /// Other values would send messages elsewhere during an upgrade.
    #[test]
    fn keys_never_change() {
        assert_eq!(key_of(""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(key_of("client"), key_of("client"));
        assert_ne!(key_of("a"), key_of("b"));
    }
}
