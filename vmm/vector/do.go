package vector

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// processor is a vCPU, stopped in 64-bit mode before the instruction. Tests have one without KVM.
type processor interface {
	registers() *registers
	// setRIP ends the instruction.
	setRIP(uint64) error
	// xsave returns the XSAVE image, to be changed in place and given to setXSave.
	xsave() (*image, error)
	setXSave(*image) error
	// translate returns the guest-physical address of va. Its errors are those of paging.
	translate(va uint64, write bool) (memory.GPA, error)
	// access reads or writes guest memory inside one page.
	access(gpa memory.GPA, data []byte, write bool) error
}

const pageMask = memory.PageSize - 1

// run does the instruction at the beginning of code and moves RIP past it. With a reason to
// refuse it does nothing but say which pages the instruction may touch.
func run(code []byte, cpu processor, refuse error) error {
	regs := cpu.registers()
	in, err := decode(code)
	if errors.Is(err, ErrTruncated) {
		return unknown(code, cpu, err, []extent{{regs.RIP, MaxBytes}})
	}
	img, imageErr := cpu.xsave()
	if imageErr != nil {
		return imageErr
	}
	if err = cmp.Or(refuse, err); err != nil {
		return unknown(code, cpu, err, in.touched(regs, img))
	}
	if err := in.do(code, regs, img, cpu); err != nil {
		return err
	}
	return cpu.setRIP(regs.RIP + uint64(in.length))
}

// unknown lists the pages of ranges that are mapped.
func unknown(code []byte, cpu processor, why error, ranges []extent) error {
	e := &UnknownError{Code: code, Err: why}
	for _, r := range ranges {
		for va := r.va; ; va = va&^pageMask + memory.PageSize {
			gpa, err := cpu.translate(va, false)
			if err == nil || errors.Is(err, ErrNotPermitted) {
				e.add(gpa)
			}
			if va|pageMask >= r.va+uint64(r.bytes)-1 || va|pageMask == ^uint64(0) {
				break
			}
		}
	}
	return e
}

// do carries out a known instruction but for RIP.
func (in *instruction) do(code []byte, regs *registers, img *image, cpu processor) error {
	var buffer [maxVectorBytes]byte
	data := buffer[:in.memoryBytes()]
	active := in.active(img)
	va := in.memory.address(regs, in.length, in.compression())
	pieces, err := in.pieces(va, len(data), active, cpu)
	if err != nil {
		return unknown(code, cpu, err, in.touched(regs, img))
	}
	if in.store {
		in.fromRegister(img, data)
	}
	for _, p := range pieces {
		if err := cpu.access(p.gpa, data[p.from:p.to], in.store); err != nil {
			return fmt.Errorf("%d bytes at %#x: %w", p.to-p.from, uint64(p.gpa), err)
		}
	}
	if in.store {
		return nil
	}
	if err := in.toRegister(img, data, active); err != nil {
		return err
	}
	return cpu.setXSave(img)
}

// active returns the mask of elements that take part, all ones without an opmask.
func (in *instruction) active(img *image) uint64 {
	if in.mask == 0 {
		return ^uint64(0)
	}
	return img.opmask(in.mask)
}

// piece is a part of the memory operand inside one page, all of it accessed.
type piece struct {
	gpa      memory.GPA
	from, to int // in the operand
}

// pieces splits the memory operand where a page ends and where elements are masked, and
// translates all of it before any is accessed: an instruction that faults does nothing.
// Masked elements don't fault, so they are not translated.
func (in *instruction) pieces(va uint64, n int, active uint64, cpu processor) (all []piece, err error) {
	for from := 0; from < n; {
		if !in.accesses(from, active) {
			from++
			continue
		}
		to := from + 1
		for to < n && (va+uint64(to))&pageMask != 0 && in.accesses(to, active) {
			to++
		}
		gpa, err := cpu.translate(va+uint64(from), in.store)
		if err != nil {
			return nil, err
		}
		all = append(all, piece{gpa, from, to})
		from = to
	}
	return all, nil
}

// accesses says whether a byte of the memory operand belongs to an active element. A
// broadcast reads all of its operand for whatever element.
func (in *instruction) accesses(at int, active uint64) bool {
	switch {
	case in.mask == 0:
		return true
	case in.row.kind == broadcast:
		return active<<(64-in.elementCount()) != 0
	}
	return active>>(at/in.row.element)&1 != 0
}

// elementCount is how many elements of the register a load sets.
func (in *instruction) elementCount() int {
	if in.row.kind == broadcast || in.row.kind == whole {
		return in.vectorBytes() / in.row.element
	}
	return in.memoryBytes() / in.row.element
}

// fromRegister fills data with what a store puts into memory.
func (in *instruction) fromRegister(img *image, data []byte) {
	v := img.vector(in.reg)
	at := 0
	switch in.row.kind {
	case highHalf:
		at = 8
	case lane:
		at = int(in.imm) % (in.vectorBytes() / len(data)) * len(data)
	}
	copy(data, v[at:])
}

// toRegister puts what a load has read into the register.
func (in *instruction) toRegister(img *image, data []byte, active uint64) error {
	old := img.vector(in.reg)
	var r register
	switch in.row.kind {
	case broadcast:
		for at := 0; at < in.vectorBytes(); at += len(data) {
			copy(r[at:], data)
		}
	case lowHalf, highHalf:
		second := old // the legacy forms have one register
		if in.enc != legacy {
			second = img.vector(in.vvvv)
		}
		copy(r[:16], second[:16])
		copy(r[8*int(in.row.kind-lowHalf):], data)
	default:
		copy(r[:], data)
	}
	if in.mask != 0 {
		in.merge(&r, &old, active)
	}
	if in.enc == legacy {
		copy(r[16:], old[16:]) // VEX and EVEX clear the rest of the register
	}
	return img.setVector(in.reg, &r)
}

// merge puts zeros or what was there into the elements that are masked.
func (in *instruction) merge(r, old *register, active uint64) {
	size := in.row.element
	for i := range in.elementCount() {
		switch element := r[i*size : (i+1)*size]; {
		case active>>i&1 != 0:
		case in.zeroing:
			clear(element)
		default:
			copy(element, old[i*size:])
		}
	}
}
