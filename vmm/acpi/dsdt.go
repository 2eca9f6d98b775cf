package acpi

import "github.com/fineline-vmm/fineline/devices/power"

const (
	dsdtRevision = 2 // integers have 64 bits

	com1Port  = 0x3f8
	com1Ports = 8
	rtcPort   = 0x70
	rtcPorts  = 2

	pciConfigPort  = 0xcf8
	pciConfigPorts = 8

	pciSlots = 32
	intxPins = 4
)

// dsdt describes what cannot be found by probing: the soft-off state, the PCI root, the devices of the board.
func dsdt(cfg Config) []byte {
	s5 := amlInteger(power.SleepTypeS5)
	body := amlName("_S5_", amlPackage(s5, s5, amlInteger(0), amlInteger(0)))
	return table("DSDT", dsdtRevision, append(body, amlScope("_SB_",
		pciRoot(cfg),
		// ECAM: Linux uses it only when some device here has reserved it.
		amlDevice("MRES", hid("PNP0C02"), amlName("_CRS", resources(
			memory32Fixed(cfg.ECAMBase, uint32(cfg.ECAMBuses)*oneMiB)))),
		amlDevice("COM1", hid("PNP0501"), amlName("_UID", amlInteger(1)), amlName("_CRS", resources(
			ioPorts(com1Port, com1Ports), irq(cfg.SerialIRQ)))),
		amlDevice("RTC_", hid("PNP0B00"), amlName("_CRS", resources(
			ioPorts(rtcPort, rtcPorts), irq(cfg.RTCIRQ)))),
	)...))
}

func hid(id string) []byte { return amlName("_HID", amlEISAID(id)) }

// pciRoot is a PCI Express root bridge, with the identifier of a plain one for guests that know only that.
func pciRoot(cfg Config) []byte {
	windows := [][]byte{
		wordRange(spaceBus, 0, 0, uint16(cfg.ECAMBuses-1)),
		ioPorts(pciConfigPort, pciConfigPorts),
		wordRange(spaceIO, ioEntireRange, 0, pciConfigPort-1),
		wordRange(spaceIO, ioEntireRange, pciConfigPort+pciConfigPorts, 0xffff),
		dwordMemory(cfg.PCIWindowBase, cfg.PCIWindowBytes),
	}
	if cfg.PCIWindow64Bytes > 0 {
		windows = append(windows, qwordMemory(cfg.PCIWindow64Base, cfg.PCIWindow64Bytes))
	}
	return amlDevice("PCI0",
		hid("PNP0A08"),
		amlName("_CID", amlEISAID("PNP0A03")),
		amlName("_UID", amlInteger(0)),
		amlName("_BBN", amlInteger(0)),
		amlName("_CRS", resources(windows...)),
		amlName("_PRT", routing()),
	)
}

// routing is _PRT (§6.2.13) for all functions of every slot but 0, where the host bridge has no interrupt.
func routing() []byte {
	const allFunctions = 0xffff
	var entries [][]byte
	for slot := uint64(1); slot < pciSlots; slot++ {
		for pin := range uint64(intxPins) {
			entries = append(entries, amlPackage(
				amlInteger(slot<<16|allFunctions),
				amlInteger(pin),
				amlInteger(0), // no link device: the next number is a GSI
				amlInteger(uint64(INTxGSI(uint8(slot), uint8(pin)))),
			))
		}
	}
	return amlPackage(entries...)
}

// INTxGSI is the IOAPIC input to which the PCI interrupt pin (0 = INTA to 3 = INTD) of a slot on bus 0 is
// wired. Slots are spread over the inputs 16 to 23, which no legacy device uses. The guest programs them as
// level triggered and active low, as PCI has it; KVM's IOAPIC takes a raised line as active whatever the polarity.
func INTxGSI(slot, pin uint8) uint32 {
	const first, inputs = 16, 8
	return first + (uint32(slot)+uint32(pin))%inputs
}
