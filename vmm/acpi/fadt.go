package acpi

import "github.com/fineline-vmm/fineline/devices/power"

// Offsets in the FADT (ACPI 6.5 table 5.9), counted from the start of the table. Fields not named stay 0.
const (
	fadtBytes       = 244 // revisions 3 and 4
	fadtRevision    = 4
	fadtFACS        = 36
	fadtDSDT        = 40
	fadtSCI         = 46
	fadtPM1aEvent   = 56
	fadtPM1aControl = 64
	fadtPMTimer     = 76
	fadtPM1EventLen = 88
	fadtPM1CtlLen   = 89
	fadtPMTimerLen  = 91
	fadtC2Latency   = 96
	fadtC3Latency   = 98
	fadtBootArch    = 109
	fadtFlags       = 112
	fadtResetReg    = 116
	fadtResetValue  = 128
	fadtXDSDT       = 140
	fadtXPM1aEvent  = 148
	fadtXPM1aCtl    = 172
	fadtXPMTimer    = 208

	// Latencies above 100 and 1000 µs say that there is no C2 and no C3.
	noC2 = 0xfff
	noC3 = 0xfff

	bootLegacyDevices = 1 << 0 // COM1, RTC
	bootNoVGA         = 1 << 2

	flagWBINVD      = 1 << 0
	flagC1          = 1 << 2
	flagNoSleepKey  = 1 << 5
	flagNoFixedRTC  = 1 << 6 // the RTC does not wake the machine
	flagResetReg    = 1 << 10
	addressSpaceIO  = 1
	accessByte      = 1
	accessWord      = 2
	accessDword     = 3
	bitsPerByte     = 8
	genericAddrSize = 12
)

// fadt is §5.2.9. The power button is the fixed one and the timer has 24 bits, both by flags that are clear.
func fadt(cfg Config, facs, dsdt uint32) []byte {
	t := make([]byte, fadtBytes)
	le.PutUint32(t[fadtFACS:], facs)
	le.PutUint32(t[fadtDSDT:], dsdt)
	le.PutUint64(t[fadtXDSDT:], uint64(dsdt)) // X_FIRMWARE_CTRL must stay 0 when FIRMWARE_CTRL is set
	le.PutUint16(t[fadtSCI:], uint16(cfg.SCI))

	le.PutUint32(t[fadtPM1aEvent:], power.EventPort)
	le.PutUint32(t[fadtPM1aControl:], power.ControlPort)
	le.PutUint32(t[fadtPMTimer:], power.TimerPort)
	t[fadtPM1EventLen] = power.EventBytes
	t[fadtPM1CtlLen] = power.ControlBytes
	t[fadtPMTimerLen] = power.TimerBytes
	copy(t[fadtXPM1aEvent:], portAddress(power.EventPort, power.EventBytes, accessWord))
	copy(t[fadtXPM1aCtl:], portAddress(power.ControlPort, power.ControlBytes, accessWord))
	copy(t[fadtXPMTimer:], portAddress(power.TimerPort, power.TimerBytes, accessDword))

	le.PutUint16(t[fadtC2Latency:], noC2)
	le.PutUint16(t[fadtC3Latency:], noC3)
	le.PutUint16(t[fadtBootArch:], bootLegacyDevices|bootNoVGA)
	le.PutUint32(t[fadtFlags:], flagWBINVD|flagC1|flagNoSleepKey|flagNoFixedRTC|flagResetReg)
	copy(t[fadtResetReg:], portAddress(power.ResetPort, power.ResetBytes, accessByte))
	t[fadtResetValue] = power.ResetValue
	return table("FACP", fadtRevision, t[headerBytes:])
}

// portAddress is the generic address structure, §5.2.3.2.
func portAddress(port uint64, sizeBytes, access byte) []byte {
	g := make([]byte, 0, genericAddrSize)
	g = append(g, addressSpaceIO, sizeBytes*bitsPerByte, 0, access)
	return le.AppendUint64(g, port)
}

const (
	facsBytes   = 64
	facsVersion = 1 // ACPI 2.0 to 3.0: no 64-bit waking vector flags
)

// facs is §5.2.10: the global lock, and no waking vector. It has neither a common header nor a checksum.
func facs() []byte {
	t := make([]byte, facsBytes)
	copy(t, "FACS")
	le.PutUint32(t[lengthOffset:], facsBytes)
	t[32] = facsVersion
	return t
}
