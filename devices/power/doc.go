// Package power is how a guest ends or restarts its machine, and the fixed ACPI
// hardware around it:
//
//	0x600  PM1a status (2), write one to clear     ACPI 6.4 §4.8.3.1
//	0x602  PM1a enable (2)
//	0x604  PM1a control (2), SLP_TYP and SLP_EN    §4.8.3.2
//	0x606  reserved (2), reads zero
//	0x608  PM timer (4), 24 bits at 3.579545 MHz   §4.8.3.3
//	0xcf9  reset control                            §4.8.3.6
//	0x60, 0x64  keyboard controller without a keyboard
//
// The addresses and the sleep type of S5 (zero) are those of QEMU's PC, where
// writing 0x2000 to port 0x604 powers off: tiny guests rely on it. The FADT and
// the DSDT must say the same; use this package's constants.
//
// SCI_EN always reads one: there is no SMI command port, so the guest is in ACPI
// mode from the start. 24 bits of timer were chosen over 32 because every guest
// masks to 24 unless the FADT says otherwise. The timer's status bit is computed
// when it is looked at; no host timer runs to raise SCI for it, since guests that
// read the timer as a clock mask that interrupt. The power button raises SCI.
//
// The counter comes from an injected monotonic clock and goes on from the saved
// value after Restore, so it never goes back.
//
// The keyboard controller answers its own commands at once, with no keyboard and
// no mouse behind it. Rejected: a status port only. A guest that asks for the
// controller's configuration would then poll half a second for the answer, and
// kernels that drain or self-test the controller at start would hang. Its command
// 0xfe is the reset that Linux tries first without ACPI.
package power
