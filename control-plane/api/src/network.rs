//! Blocks of IP addresses, as people write them.

use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The first of them.
    pub first: IpAddr,
    /// How many bits they share: up to 32 in IPv4, 128 in IPv6.
    pub bits: u8,
}

impl Network {
    /// One address.
    pub fn host(address: impl Into<IpAddr>) -> Self {
        let first = address.into();
        Self { first, bits: if first.is_ipv4() { 32 } else { 128 } }
    }

    /// One address only.
    pub fn is_host(self) -> bool {
        self == Self::host(self.first)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// `ADDRESS/BITS`. Errors are what is wrong, in words that follow the text.
impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').ok_or("is not ADDRESS/BITS, such as 10.0.0.0/8")?;
        let first: IpAddr = address.parse().map_err(|_| format!("{address:?} is no IP address"))?;
        let (value, width) = match first {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let bits = bits.parse::<u8>().ok().filter(|bits| *bits <= width);
        let bits = bits.ok_or_else(|| format!("{address} has 0 to {width} bits"))?;
        // What the kernel masks away would look like another network when it is listed.
        if value & u128::MAX.checked_shr(128 - u32::from(width - bits)).unwrap_or(0) != 0 {
            return Err(format!("{address} is not the first address of its network of {bits} bits"));
        }
        Ok(Self { first, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_any_size() {
        for text in ["0.0.0.0/0", "::/0", "10.1.2.3/32", "::1/128", "128.0.0.0/1", "8000::/1"] {
            assert_eq!(text.parse::<Network>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        for (text, words) in [
            ("10.0.0.0", "is not ADDRESS/BITS"),
            ("x/1", "\"x\" is no IP address"),
            ("10.0.0.0/33", "10.0.0.0 has 0 to 32 bits"),
            ("10.0.0.1/8", "10.0.0.1 is not the first address of its network of 8 bits"),
            ("2001:db8::1/64", "2001:db8::1 is not the first"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.starts_with(words), "{error}");
        }
    }
}
