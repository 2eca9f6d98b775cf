package kvm

import (
	"encoding/binary"
	"testing"
)

func TestLegacyRoutes(t *testing.T) {
	r := legacyRoutes()
	if r.count != maxRoutes {
		t.Fatalf("%d routes, want %d", r.count, maxRoutes)
	}
	type pin struct{ chip, pin uint32 }
	seen := map[pin]uint32{}
	for _, e := range r.entries {
		p := pin{e.irqchip, e.pin}
		if gsi, twice := seen[p]; twice {
			t.Errorf("pin %d of chip %d has lines %d and %d", e.pin, e.irqchip, gsi, e.gsi)
		}
		seen[p] = e.gsi
	}
	for p, gsi := range map[pin]uint32{
		{irqchipPICMaster, 0}: 0, {irqchipIOAPIC, 2}: 0, {irqchipPICMaster, 4}: 4, {irqchipIOAPIC, 4}: 4,
		{irqchipPICSlave, 0}: 8, {irqchipIOAPIC, 8}: 8, {irqchipIOAPIC, 23}: 23,
	} {
		if got, ok := seen[p]; !ok || got != gsi {
			t.Errorf("pin %d of chip %d has line %d (%v), want %d", p.pin, p.chip, got, ok, gsi)
		}
	}
}

func TestLinesReachTheChips(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	const picIRR, ioapicIRR = 1, 16 // offsets in kvm_pic_state and kvm_ioapic_state
	requests := func() (pic byte, ioapic uint32) {
		s, err := m.vm.State()
		must(t, err)
		return s.PICMaster[picIRR], binary.LittleEndian.Uint32(s.IOAPIC[ioapicIRR:])
	}
	must(t, m.vm.SetIRQLine(0, true))
	must(t, m.vm.SetIRQLine(4, true))
	if pic, ioapic := requests(); pic != 1<<0|1<<4 || ioapic != 1<<2|1<<4 {
		t.Errorf("lines 0 and 4 high: PIC %#x, IOAPIC %#x", pic, ioapic)
	}
	must(t, m.vm.SetIRQLine(0, false))
	must(t, m.vm.SetIRQLine(4, false))
	if _, ioapic := requests(); ioapic != 0 {
		t.Errorf("lines low: IOAPIC %#x", ioapic)
	}
}

func TestMSIReachesTheLAPIC(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	const (
		vector       = 0x41
		msiAddr      = 0xfee0_0000 // to APIC 0
		spurious     = 0xf0
		softEnable   = 1 << 8
		requestArray = 0x200 // IRR: 32 vectors every 16 bytes
	)
	must(t, m.vm.SignalMSI(msiAddr, vector)) // the LAPIC is off: dropped, no error
	s := new(VCPUState)
	must(t, c.saveLAPIC(s))
	binary.LittleEndian.PutUint32(s.LAPIC[spurious:], softEnable|0xff)
	must(t, c.restoreLAPIC(s))
	must(t, m.vm.SignalMSI(msiAddr, vector))
	must(t, c.saveLAPIC(s))
	if got := binary.LittleEndian.Uint32(s.LAPIC[requestArray+vector/32*16:]); got != 1<<(vector%32) {
		t.Errorf("requested vectors %#x", got)
	}
}
