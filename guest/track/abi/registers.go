package abi

// PCI identity of the device.
const (
	VendorID = 0xf11e
	DeviceID = 0x0001

	BARBytes = 4096
)

// Registers of BAR 0, by offset in bytes.
const (
	RegID          = 0x00
	RegVersion     = 0x04
	RegFeatures    = 0x08
	RegMaxContexts = 0x0c
	RegMaxRanges   = 0x10
	RegControl     = 0x14
	RegStatus      = 0x18
	RegError       = 0x1c
	RegCmdRing     = 0x20 // 8 bytes
	RegCplRing     = 0x28 // 8 bytes
	RegCmdEntries  = 0x30
	RegCplEntries  = 0x34
	RegDoorbell    = 0x38
	RegCmdTaken    = 0x3c
	RegCplTaken    = 0x40
	RegCplPut      = 0x44
)

// Values of the registers.
const (
	Magic   = 0x4b544c46
	Version = 1

	FeatureDiff   = 1 << 0
	FeatureStores = 1 << 1
	FeatureHomed  = 1 << 2

	ControlEnable    = 1 << 0
	ControlInterrupt = 1 << 1

	StatusEnabled = 1 << 0
	StatusError   = 1 << 1

	RingBadAddress = 1
	RingBadEntries = 2
	RingBadIndex   = 3
)
