package kvm

// maxRoutes is the number of legacy routes: 16 lines at the PICs but for the
// cascade (line 2), 24 pins of the IOAPIC but for pin 0.
const maxRoutes = 15 + 23

const (
	irqchipPICMaster = 0
	irqchipPICSlave  = 1
	irqchipIOAPIC    = 2

	ioapicPins     = 24
	picLines       = 8
	cascadeLine    = 2
	timerPin       = 2 // where the PC has IRQ 0 at the IOAPIC (MADT override)
	routeToIRQChip = 1 // KVM_IRQ_ROUTING_IRQCHIP
)

// legacyRoutes wires the lines as a PC does: 0..15 to the PICs, all to the IOAPIC
// pin of the same number except the timer, which is at pin 2. KVM's own default
// has the timer at pin 0 and contradicts every PC's ACPI tables.
func legacyRoutes() *irqRouting {
	r := new(irqRouting)
	add := func(gsi, chip, pin uint32) {
		r.entries[r.count] = irqRoutingEntry{gsi: gsi, kind: routeToIRQChip, irqchip: chip, pin: pin}
		r.count++
	}
	for line := range uint32(2 * picLines) {
		if line != cascadeLine {
			add(line, line/picLines, line%picLines) // chip 0 is the master, 1 the slave
		}
	}
	add(0, irqchipIOAPIC, timerPin)
	for pin := range uint32(ioapicPins) {
		if pin != 0 && pin != timerPin {
			add(pin, irqchipIOAPIC, pin)
		}
	}
	return r
}
