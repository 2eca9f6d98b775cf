package kvm

// xsaveOffsets says where each component of an XSAVE image lies, by its number.
type xsaveOffsets [64]int

// XSave reads the vCPU's XSAVE image, in the standard format. The slice is reused by the
// next call; it may be changed and given to SetXSave.
func (c *VCPU) XSave() ([]byte, error) {
	if c.xsave == nil {
		c.xsave = make([]byte, c.vm.xsaveBytes)
	}
	return c.xsave, c.getXSave(c.xsave)
}

// SetXSave writes what XSave has returned.
func (c *VCPU) SetXSave(area []byte) error { return c.setXSave(area) }

// XSaveOffset returns where a component, a bit number of XCR0 from 2 up, lies in the image, 0 if this
// host does not have it. The image has the host's layout, whatever CPUID the guest sees.
func (c *VCPU) XSaveOffset(component int) int {
	if component < 0 || component >= len(c.vm.xsaveOffsets) {
		return 0
	}
	return c.vm.xsaveOffsets[component]
}

func (s *System) xsaveOffsets() (offsets xsaveOffsets, err error) {
	// Intel SDM vol. 2A, CPUID: subleaves from 2 up are the components; EBX is the
	// offset, ECX bit 0 set means that the component is in compacted images only.
	const leaf = 0xd
	entries, err := s.SupportedCPUID()
	if err != nil {
		return offsets, err
	}
	for _, e := range entries {
		if e.Function == leaf && e.Index >= 2 && e.Index < uint32(len(offsets)) && e.ECX&1 == 0 {
			offsets[e.Index] = int(e.EBX)
		}
	}
	return offsets, nil
}
