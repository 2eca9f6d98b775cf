package fpga

import (
	"encoding/binary"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
)

const (
	headerPath = "../../guest/include/fineline_fpga.h"
	pagePath   = "../../docs/fpga.md"
)

// constants are the header's as this package has them.
var constants = map[string]uint64{
	"VENDOR_ID": vendorID, "DEVICE_ID": deviceID, "CLASS": class, "BAR_BYTES": barBytes,

	"ID": regID, "VERSION": regVersion, "FEATURES": regFeatures, "MAX_CONTEXTS": regMaxContexts, "MAX_RANGES": regMaxRanges,
	"CONTROL": regControl, "STATUS": regStatus, "ERROR": regError, "CMD_RING": regCmdRing, "CPL_RING": regCplRing,
	"CMD_ENTRIES": regCmdEntries, "CPL_ENTRIES": regCplEntries, "DOORBELL": regDoorbell, "CMD_TAKEN": regCmdTaken,
	"CPL_TAKEN": regCplTaken, "CPL_PUT": regCplPut,

	"MAGIC": magic, "ABI_VERSION": abiVersion,
	"FEATURE_DIFF": 1 << track.Diff, "FEATURE_STORES": 1 << track.Stores, "FEATURE_HOMED": 1 << track.Homed,
	"CONTROL_ENABLE": controlEnable, "CONTROL_INTERRUPT": controlInterrupt,
	"STATUS_ENABLED": statusEnabled, "STATUS_ERROR": statusError,
	"RING_BAD_ADDRESS": ringBadAddress, "RING_BAD_ENTRIES": ringBadEntries, "RING_BAD_INDEX": ringBadIndex,

	"OP_CREATE": opCreate, "OP_DESTROY": opDestroy, "OP_REGISTER": opRegister, "OP_UNREGISTER": opUnregister,
	"OP_START": opStart, "OP_STOP": opStop, "OP_HARVEST": opHarvest,
	"MODE_DIFF": uint64(track.Diff), "MODE_STORES": uint64(track.Stores), "MODE_HOMED": uint64(track.Homed),
	"CREATE_MODE_MASK": createModeMask, "CREATE_COUNT_BYTES": createCountBytes, "HARVEST_NO_SNOOP": harvestNoSnoop,
	"RECORD_INEXACT": recordInexact, "RECORD_COUNTED": recordCounted, "COMPLETION_MORE": completionMore,

	"OK": uint64(statusOK), "ERR_OPCODE": uint64(errOpcode), "ERR_FLAGS": uint64(errFlags), "ERR_CONTEXT": uint64(errContext),
	"ERR_STATE": uint64(errState), "ERR_ADDRESS": uint64(errAddress), "ERR_COUNT": uint64(errCount),
	"ERR_NOT_REGISTERED": uint64(errNotRegistered), "ERR_NO_SPACE": uint64(errNoSpace), "ERR_HOST": uint64(errHost),
}

var (
	define = regexp.MustCompile(`(?m)^#define FLFPGA_(\w+)\s+(\([^)]*\)|\S+)`)
	value  = regexp.MustCompile(`^\(?(0x[0-9a-f]+|\d+)u?(?: << (\d+))?\)?$`)
	cStruc = regexp.MustCompile(`(?ms)^struct (\w+) \{\n(.*?)^\};`)
	field  = regexp.MustCompile(`(?m)^\s+uint(32|64)_t (\w+)(?:\[(\d+)\])?;`)
)

func readText(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// headerConstants are the header's values by name, without FLFPGA_.
func headerConstants(t *testing.T) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for _, m := range define.FindAllStringSubmatch(readText(t, headerPath), -1) {
		v := value.FindStringSubmatch(m[2])
		if v == nil {
			t.Errorf("FLFPGA_%s: what value is %q?", m[1], m[2])
			continue
		}
		n, err := strconv.ParseUint(v[1], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		shift, _ := strconv.Atoi("0" + v[2])
		all[m[1]] = n << shift
	}
	return all
}

func TestHeaderConstants(t *testing.T) {
	if got := headerConstants(t); !reflect.DeepEqual(got, constants) {
		for name, v := range got {
			if mine, ok := constants[name]; !ok || mine != v {
				t.Errorf("FLFPGA_%s is %#x in the header, %#x here", name, v, mine)
			}
		}
		for name := range constants {
			if _, ok := got[name]; !ok {
				t.Errorf("FLFPGA_%s is not in the header", name)
			}
		}
	}
}

// cField is where a field of a C struct is; all fields are naturally aligned, as the sizes show.
type cField struct{ at, size int }

// cStruct returns the fields of a struct of the header, and its size.
func cStruct(t *testing.T, name string) (map[string]cField, int) {
	t.Helper()
	for _, m := range cStruc.FindAllStringSubmatch(readText(t, headerPath), -1) {
		if m[1] != name {
			continue
		}
		fields, at := map[string]cField{}, 0
		for _, f := range field.FindAllStringSubmatch(m[2], -1) {
			bits, _ := strconv.Atoi(f[1])
			n, _ := strconv.Atoi(f[3])
			if at%(bits/8) != 0 {
				t.Fatalf("%s.%s: a C compiler would pad before it", name, f[2])
			}
			fields[f[2]] = cField{at, bits / 8}
			at += bits / 8 * max(n, 1)
		}
		return fields, at
	}
	t.Fatalf("no struct %s in the header", name)
	return nil, 0
}

// cValues reads the fields of a struct, or writes a different value to each.
func cValues(fields map[string]cField, raw []byte) map[string]uint64 {
	all := map[string]uint64{}
	for name, f := range fields {
		var wide [8]byte
		copy(wide[:], raw[f.at:f.at+f.size])
		all[name] = binary.LittleEndian.Uint64(wide[:])
	}
	return all
}

func wantFields(t *testing.T, got, want map[string]uint64) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("fields %#x, want %#x", got, want)
	}
}

func TestHeaderStructs(t *testing.T) {
	fields, size := cStruct(t, "flfpga_command")
	if size != commandBytes {
		t.Errorf("a command has %d bytes in the header", size)
	}
	var raw [commandBytes]byte
	for i := range raw[:fields["reserved"].at] {
		raw[i] = byte(i + 1)
	}
	c := parseCommand(&raw)
	want := cValues(fields, raw[:])
	wantFields(t, map[string]uint64{
		"opcode": uint64(c.opcode), "flags": uint64(c.flags), "cookie": c.cookie, "context": uint64(c.context),
		"count": uint64(c.count), "address": uint64(c.address), "reserved": 0,
	}, want)
	for i := fields["reserved"].at; i < size; i++ {
		if raw[i] = 1; !parseCommand(&raw).reserved {
			t.Errorf("byte %d of a command is not looked at", i)
		}
		raw[i] = 0
	}

	fields, size = cStruct(t, "flfpga_completion")
	done := Completion{Cookie: 0x1122334455667788, Result: 0x99aabbccddeeff00, Status: 1, Flags: 2, Context: 3}
	body := append(done.body(), 4, 0, 0, 0)
	if size != completionBytes || len(body) != size || fields["sequence"].at != sequenceOffset {
		t.Errorf("a completion has %d bytes in the header", size)
	}
	wantFields(t, cValues(fields, body), map[string]uint64{
		"cookie": done.Cookie, "result": done.Result, "status": 1, "flags": 2, "context": 3, "sequence": 4,
	})

	fields, size = cStruct(t, "flfpga_record")
	record := appendRecord(nil, track.Page{GPA: 0x123000, Lines: 1 << 63, ChangedBytes: 77, Counted: true})
	if size != recordBytes || len(record) != size {
		t.Errorf("a record has %d bytes in the header", size)
	}
	wantFields(t, cValues(fields, record), map[string]uint64{
		"page": 0x123000, "lines": 1 << 63, "changed_bytes": 77, "flags": recordCounted, "reserved": 0,
	})

	fields, size = cStruct(t, "flfpga_range")
	list := raw[8 : 8+rangeBytes]
	r := parseRange(list)
	if size != rangeBytes {
		t.Errorf("a range has %d bytes in the header", size)
	}
	wantFields(t, map[string]uint64{"address": uint64(r.Base), "bytes": r.SizeBytes}, cValues(fields, list))
}

var (
	flName = regexp.MustCompile(`FLFPGA_([A-Z0-9_]+)`)
	row    = regexp.MustCompile("(?m)^\\| `(0x[0-9a-f]+|\\d+)` \\| `FLFPGA_(\\w+)` \\|")
)

// TestPage compares docs/fpga.md with the header: names exist, tables have the right numbers and leave nothing out.
func TestPage(t *testing.T) {
	text, header := readText(t, pagePath), headerConstants(t)
	for _, m := range flName.FindAllStringSubmatch(text, -1) {
		if _, ok := header[m[1]]; !ok {
			t.Errorf("the page names FLFPGA_%s, the header doesn't", m[1])
		}
	}
	rows := map[string]uint64{}
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		rows[m[2]], _ = strconv.ParseUint(m[1], 0, 64)
	}
	inTable := regexp.MustCompile(`^(ID|VERSION|FEATURES|MAX_\w+|CONTROL|STATUS|ERROR|C(MD|PL)_\w+|DOORBELL|OP_\w+|OK|ERR_\w+)$`)
	for name, v := range header {
		if got, ok := rows[name]; inTable.MatchString(name) && (!ok || got != v) {
			t.Errorf("FLFPGA_%s = %#x: in the page's tables: %v, %#x", name, v, ok, got)
		}
		if !strings.Contains(text, "FLFPGA_"+name) {
			t.Errorf("the page does not name FLFPGA_%s", name)
		}
	}
}
