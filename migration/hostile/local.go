package hostile

import (
	"bytes"
	"errors"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// lender is a connection whose next bytes carry descriptors.
type lender struct {
	net.Conn
	files []int
}

func (l *lender) Write(p []byte) (int, error) {
	if len(l.files) == 0 {
		return l.Conn.Write(p)
	}
	conn, ok := l.Conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("descriptors pass through a Unix socket only")
	}
	rights := unix.UnixRights(l.files...)
	l.files = nil
	n, _, err := conn.WriteMsgUnix(p, rights, nil)
	return n, err
}

// lends sends MEMORY with descriptors.
func lends(files ...int) func(*attack) error {
	return func(a *attack) error {
		a.main.lend.files = files
		return a.main.Signal(wire.TypeMemory)
	}
}

// lendsMemory lends memory of this size, as an honest source has it.
func lendsMemory(sizeBytes uint64) func(*attack) error {
	return func(a *attack) error {
		mem, err := memory.New([]memory.Region{{SizeBytes: sizeBytes}}, memory.Options{})
		if err != nil {
			return err
		}
		return errors.Join(mem.LendFiles(func(files []int) error { return lends(files...)(a) }), mem.Close())
	}
}

// lendsFile lends memory that its owner could take away.
func lendsFile(a *attack) error {
	fd, err := unix.MemfdCreate("hostile", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	return errors.Join(unix.Ftruncate(fd, MemoryBytes), lends(fd)(a), unix.Ftruncate(fd, 0), unix.Close(fd))
}

// lendsPipe lends one end of a pipe, so many times.
func lendsPipe(times int) func(*attack) error {
	return func(a *attack) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		return errors.Join(lends(slices.Repeat([]int{int(w.Fd())}, times)...)(a), r.Close(), w.Close())
	}
}

// locals are the sources of local hand-overs.
func locals() []Source {
	page := bytes.Repeat([]byte{0xee}, memory.PageSize)
	refused := func(name string, offer func(*attack) error) Source {
		return Source{Name: name, Mode: wire.ModeLocal, Refused: true, offer: offer}
	}
	accepted := func(name string, deeds func(*attack) error) Source {
		return Source{Name: name, Mode: wire.ModeLocal, offer: lendsMemory(MemoryBytes), play: deeds}
	}
	return []Source{
		refused("local: no memory", lends()),
		refused("local: STATE in place of memory", payload(wire.TypeState, page)),
		refused("local: memory of another size", lendsMemory(MemoryBytes/2)),
		refused("local: memory that may shrink", lendsFile),
		refused("local: a pipe for memory", lendsPipe(1)),
		refused("local: more files than any machine has", lendsPipe(200)),
		accepted("local: state of rubbish", payload(wire.TypeState, page)),
		accepted("local: pages", pages(wire.KindData, 1, 1, page)),
		accepted("local: memory twice", lendsMemory(MemoryBytes)),
		accepted("local: commit at once", payload(wire.TypeCommit, nil)),
	}
}
