package vmm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// errBootChanged is wrapped by the refusal to load other files than those that the
// machine had at its source.
var errBootChanged = errors.New("it is not the file that the machine had where it came from")

// bootDigests are the SHA-256 of what a guest is booted from. They move with a machine:
// its paths come from a peer, which may so choose among files that it has itself, and
// not read any other of this host through the guest. A field is empty for what there is
// not, or what the source could not read.
type bootDigests struct {
	Kernel []byte `json:"kernel_sha256,omitempty"`
	Initrd []byte `json:"initrd_sha256,omitempty"`
}

// digests hashes what a reset would load now. It is done for a description only: it
// takes as long as reading the files.
func (b BootFiles) digests() bootDigests {
	src, err := b.open()
	if err != nil { // then the guest can't reset there either
		return bootDigests{}
	}
	defer src.close()
	d := bootDigests{Kernel: digest(src.Kernel, src.KernelSizeBytes)}
	if src.Initrd != nil {
		d.Initrd = digest(src.Initrd, src.InitrdSizeBytes)
	}
	return d
}

// check refuses other files. One that is larger than the guest's memory is not read.
func (d *bootDigests) check(src *bootSource, limitBytes uint64) error {
	for _, f := range []struct {
		what      string
		content   io.ReaderAt
		sizeBytes int64
		want      []byte
	}{
		{"kernel", src.Kernel, src.KernelSizeBytes, d.Kernel},
		{"initrd", src.Initrd, src.InitrdSizeBytes, d.Initrd},
	} {
		if f.content == nil {
			continue
		}
		if uint64(f.sizeBytes) > limitBytes || len(f.want) == 0 || !bytes.Equal(digest(f.content, f.sizeBytes), f.want) {
			return fmt.Errorf("%s: %w", f.what, errBootChanged)
		}
	}
	return nil
}

// digest returns nil for what can't be read.
func digest(content io.ReaderAt, sizeBytes int64) []byte {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(content, 0, sizeBytes)); err != nil {
		return nil
	}
	return h.Sum(nil)
}
