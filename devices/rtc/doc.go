// Package rtc is the MC146818 clock of a PC with its 128 bytes of CMOS memory, at
// ports 0x70 (index) and 0x71 (data). Guests read the date at boot and may set it.
//
// Time is the injected clock plus an offset that the guest changes by setting the
// date, so it costs nothing while nobody looks, and goes on by itself after Restore
// on another host. Time is UTC. Register B selects binary or BCD and 12 or 24 hours;
// the century is at 0x32, where the FADT says it is.
//
// UIP is high for the 244 µs before the second changes, as the data sheet promises,
// and the change itself takes no time: a guest that saw UIP low has 244 µs, one that
// sees it high waits that long. While SET is on (register B) or the divider is held
// in reset (register A) the time registers are plain memory, so that a guest can
// write a date field by field through dates that do not exist; at the end of it they
// become the time, with half a second to the next change after a divider reset.
// Out-of-range fields are carried over (minute 61 is the next hour) and counted.
//
// # Left out
//
// Alarm, periodic and update interrupts: no guest boots or keeps time by them (they
// have the PIT, the LAPIC timer and kvmclock), and they would need a host timer. The
// alarm registers are memory, the enables in register B can be set, the flags in
// register C stay clear except UF, which guests poll. The NMI mask in bit 7 of the
// index is stored and has no effect, since nothing raises NMI. Daylight saving by
// the chip (DSE) is ignored, as everywhere today.
package rtc
