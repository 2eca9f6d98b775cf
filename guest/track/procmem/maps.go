package procmem

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mapping is one line of /proc/PID/maps: the bytes from Start to before End.
type Mapping struct {
	Start, End uint64
	Writable   bool
	Shared     bool
	Path       string // of the file, or a name in brackets such as [heap], or empty
}

// Maps is the list of one address space's mappings. It is for one goroutine.
type Maps struct{ file *os.File }

// OpenMaps opens the list of a process, by number or "self".
func OpenMaps(pid string) (*Maps, error) {
	f, err := os.Open(filepath.Join("/proc", pid, "maps"))
	if err != nil {
		return nil, opened(err)
	}
	return &Maps{f}, nil
}

// Read returns the mappings of now, in rising order.
func (m *Maps) Read() ([]Mapping, error) {
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	mappings, err := parseMaps(m.file)
	switch {
	case errors.Is(err, unix.ESRCH), err == nil && len(mappings) == 0:
		return nil, ErrGone
	case err != nil:
		return nil, fmt.Errorf("maps: %w", err)
	}
	return mappings, nil
}

// Close closes the descriptor.
func (m *Maps) Close() error { return m.file.Close() }

func parseMaps(r io.Reader) ([]Mapping, error) {
	var all []Mapping
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return all, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		m, err := parseMapping(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
}

// parseMapping reads "55d0-55e0 rw-p 00000000 08:01 1234   /path with spaces".
func parseMapping(line string) (Mapping, error) {
	var word [5]string
	rest := line
	for i := range word {
		word[i], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	from, to, ok := strings.Cut(word[0], "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if !ok || err1 != nil || err2 != nil || end <= start || start%PageBytes != 0 || end%PageBytes != 0 || len(word[1]) != 4 {
		return Mapping{}, fmt.Errorf("not a mapping: %q", line)
	}
	return Mapping{
		Start: start, End: end, Path: strings.TrimLeft(rest, " "),
		Writable: word[1][1] == 'w', Shared: word[1][3] == 's',
	}, nil
}

// Tracked says whether writes to the mapping are writes to memory: it is writable and no window of a
// device. Those are files of /dev (but not of /dev/shm and the anonymous memory of /dev/zero) and /sys.
func (m Mapping) Tracked() bool {
	device := strings.HasPrefix(m.Path, "/dev/") && !strings.HasPrefix(m.Path, "/dev/shm/") && !strings.HasPrefix(m.Path, "/dev/zero")
	return m.Writable && !device && !strings.HasPrefix(m.Path, "/sys/") && !strings.HasPrefix(m.Path, "anon_inode:")
}

// Private says whether the mapping is the process's own anonymous memory, its heap and stacks.
func (m Mapping) Private() bool {
	return !m.Shared && (m.Path == "" || strings.HasPrefix(m.Path, "["))
}
