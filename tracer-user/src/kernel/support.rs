//! Support: what this kernel can do for connleak, found out without changing it.
