package acpi

// From ACPI 6.5 §5.2.12.
const (
	madtRevision  = 3
	madtPCATCompt = 1 << 0 // the two old interrupt controllers exist and must be masked

	madtLocalAPIC   = 0
	madtIOAPIC      = 1
	madtOverride    = 2
	madtLAPICNMI    = 4
	madtCPUEnabled  = 1 << 0
	madtAllCPUs     = 0xff
	madtNMIInput    = 1      // LINT1
	mpsISAConforms  = 0      // edge, active high
	mpsLevelHigh    = 0b1101 // level, active high
	isaBus          = 0
	ioapicID        = 0
	timerIRQ        = 0
	timerGSI        = 2 // input 0 takes the old controllers' output
	madtIOAPICBytes = 12
)

// madt lists the interrupt controllers.
func madt(cfg Config) []byte {
	body := le.AppendUint32(nil, cfg.LAPICBase)
	body = le.AppendUint32(body, madtPCATCompt)
	for id := range cfg.CPUs {
		body = append(body, madtLocalAPIC, 8, byte(id), byte(id))
		body = le.AppendUint32(body, madtCPUEnabled)
	}
	body = append(body, madtIOAPIC, madtIOAPICBytes, ioapicID, 0)
	body = le.AppendUint32(body, cfg.IOAPICBase)
	body = le.AppendUint32(body, 0) // first GSI
	body = append(body, override(timerIRQ, timerGSI, mpsISAConforms)...)
	body = append(body, override(cfg.SCI, uint32(cfg.SCI), mpsLevelHigh)...)
	body = append(body, madtLAPICNMI, 6, madtAllCPUs, 0, 0, madtNMIInput)
	return table("APIC", madtRevision, body)
}

// override says where a legacy interrupt arrives, and how (§5.2.12.5).
func override(irq uint8, gsi uint32, flags uint16) []byte {
	e := []byte{madtOverride, 10, isaBus, irq}
	e = le.AppendUint32(e, gsi)
	return le.AppendUint16(e, flags)
}
