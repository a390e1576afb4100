//! Negotiation, help texts and the converter.
