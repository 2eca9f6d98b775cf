package acpi

import (
	"bytes"
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/devices/power"
	"github.com/fineline-vmm/fineline/memory"
)

const testBase memory.GPA = 0xe0000

func testConfig() Config {
	return Config{
		CPUs: 2, LAPICBase: 0xfee00000, IOAPICBase: 0xfec00000, ECAMBase: 0xe0000000, ECAMBuses: 1,
		PCIWindowBase: 0xc0000000, PCIWindowBytes: 0x20000000, SCI: 9, RTCIRQ: 8, SerialIRQ: 4,
	}
}

// flatMemory is RAM from testBase on.
type flatMemory struct{ bytes []byte }

var errBeyond = errors.New("beyond memory")

func (m *flatMemory) WriteAt(gpa memory.GPA, p []byte) error {
	if gpa < testBase || uint64(gpa-testBase)+uint64(len(p)) > uint64(len(m.bytes)) {
		return errBeyond
	}
	copy(m.bytes[gpa-testBase:], p)
	return nil
}

// at returns the table at a guest address, as long as its header says.
func (m *flatMemory) at(gpa uint64) []byte {
	p := m.bytes[gpa-uint64(testBase):]
	return p[:le.Uint32(p[lengthOffset:])]
}

func writeTables(t *testing.T, cfg Config) *flatMemory {
	t.Helper()
	m := &flatMemory{bytes: make([]byte, 0x10000)}
	rsdp, err := Write(m, testBase, uint64(len(m.bytes)), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if rsdp != testBase {
		t.Fatalf("RSDP at %#x, want %#x", rsdp, testBase)
	}
	return m
}

// findTables walks from the RSDP and checks every checksum on the way.
func findTables(t *testing.T, m *flatMemory) map[string][]byte {
	t.Helper()
	rsdp := m.bytes[:rsdpBytes]
	if string(rsdp[:8]) != "RSD PTR " || sum(rsdp[:rsdpV1Bytes]) != 0 || sum(rsdp) != 0 {
		t.Fatalf("bad RSDP % x", rsdp)
	}
	rsdt, xsdt := m.at(uint64(le.Uint32(rsdp[16:]))), m.at(le.Uint64(rsdp[24:]))
	tables := map[string][]byte{"RSDT": rsdt, "XSDT": xsdt}
	if (len(rsdt)-headerBytes)/4 != (len(xsdt)-headerBytes)/8 {
		t.Error("RSDT and XSDT list different numbers of tables")
	}
	for i := 0; headerBytes+8*i < len(xsdt); i++ {
		address := le.Uint64(xsdt[headerBytes+8*i:])
		if old := le.Uint32(rsdt[headerBytes+4*i:]); uint64(old) != address {
			t.Errorf("entry %d: RSDT has %#x, XSDT %#x", i, old, address)
		}
		table := m.at(address)
		tables[string(table[:4])] = table
	}
	fadt := tables["FACP"]
	tables["DSDT"] = m.at(le.Uint64(fadt[fadtXDSDT:]))
	for name, table := range tables {
		if sum(table) != 0 {
			t.Errorf("%s: bytes sum to %#x", name, sum(table))
		}
		if string(table[:4]) != name {
			t.Errorf("%s has the signature %q", name, table[:4])
		}
	}
	facsAt := le.Uint32(fadt[fadtFACS:])
	if facsAt%64 != 0 {
		t.Errorf("FACS at %#x is not 64-byte aligned", facsAt)
	}
	tables["FACS"] = m.at(uint64(facsAt))
	return tables
}

func sum(p []byte) (s byte) {
	for _, b := range p {
		s += b
	}
	return s
}

func TestTablesHangTogether(t *testing.T) {
	for _, cpus := range []int{1, 2, 4, 64, MaxCPUs} {
		cfg := testConfig()
		cfg.CPUs = cpus
		tables := findTables(t, writeTables(t, cfg))
		for _, name := range []string{"RSDT", "XSDT", "FACP", "FACS", "DSDT", "APIC", "MCFG"} {
			if tables[name] == nil {
				t.Errorf("%d CPUs: no %s", cpus, name)
			}
		}
	}
}

func TestFADT(t *testing.T) {
	fadt := findTables(t, writeTables(t, testConfig()))["FACP"]
	port := func(off int) uint64 { return le.Uint64(fadt[off+4:]) }
	tests := []struct {
		name      string
		got, want uint64
	}{
		{"SCI", uint64(le.Uint16(fadt[fadtSCI:])), 9},
		{"PM1a event", uint64(le.Uint32(fadt[fadtPM1aEvent:])), 0x600},
		{"PM1a control", uint64(le.Uint32(fadt[fadtPM1aControl:])), 0x604},
		{"PM timer", uint64(le.Uint32(fadt[fadtPMTimer:])), 0x608},
		{"extended PM1a event", port(fadtXPM1aEvent), power.EventPort},
		{"extended PM1a control", port(fadtXPM1aCtl), power.ControlPort},
		{"extended PM timer", port(fadtXPMTimer), power.TimerPort},
		{"reset port", port(fadtResetReg), 0xcf9},
		{"reset value", uint64(fadt[fadtResetValue]), 6},
		{"SMI command port", uint64(le.Uint32(fadt[48:])), 0},
		{"hardware reduced", uint64(le.Uint32(fadt[fadtFlags:]) >> 20 & 1), 0},
		{"32-bit timer", uint64(le.Uint32(fadt[fadtFlags:]) >> 8 & 1), 0},
		{"both DSDT pointers", uint64(le.Uint32(fadt[fadtDSDT:])), le.Uint64(fadt[fadtXDSDT:])},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s is %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}

func TestMADT(t *testing.T) {
	cfg := testConfig()
	cfg.CPUs = 3
	madt := findTables(t, writeTables(t, cfg))["APIC"]
	if got := le.Uint32(madt[headerBytes:]); got != cfg.LAPICBase {
		t.Errorf("local APICs at %#x", got)
	}
	want := [][]byte{
		{0, 8, 0, 0, 1, 0, 0, 0}, {0, 8, 1, 1, 1, 0, 0, 0}, {0, 8, 2, 2, 1, 0, 0, 0},
		{1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0},
		{2, 10, 0, 0, 2, 0, 0, 0, 0, 0},
		{2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0},
		{4, 6, 0xff, 0, 0, 1},
	}
	if got := madt[headerBytes+8:]; !bytes.Equal(got, bytes.Join(want, nil)) {
		t.Errorf("entries % x\nwant    % x", got, bytes.Join(want, nil))
	}
}

func TestMCFG(t *testing.T) {
	mcfg := findTables(t, writeTables(t, testConfig()))["MCFG"]
	want := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if got := mcfg[headerBytes:]; !bytes.Equal(got, want) {
		t.Errorf("MCFG % x\nwant % x", got, want)
	}
}

func TestSoftOffMatchesPowerDevice(t *testing.T) {
	dsdt := findTables(t, writeTables(t, testConfig()))["DSDT"]
	want := []byte{opName, '_', 'S', '5', '_', opPackage, 6, 4, 0, 0, 0, 0}
	if !bytes.HasPrefix(dsdt[headerBytes:], want) {
		t.Errorf("DSDT begins % x, want % x", dsdt[headerBytes:headerBytes+len(want)], want)
	}
}

func TestSameConfigSameBytes(t *testing.T) {
	if !bytes.Equal(build(testBase, testConfig()), build(testBase, testConfig())) {
		t.Error("two builds differ")
	}
}

func TestWriteRefuses(t *testing.T) {
	tests := []struct {
		name   string
		at     memory.GPA
		limit  uint64
		change func(*Config)
	}{
		{"no CPU", testBase, 0x10000, func(c *Config) { c.CPUs = 0 }},
		{"too many CPUs", testBase, 0x10000, func(c *Config) { c.CPUs = MaxCPUs + 1 }},
		{"no bus", testBase, 0x10000, func(c *Config) { c.ECAMBuses = 0 }},
		{"ECAM beyond 4 GiB", testBase, 0x10000, func(c *Config) { c.ECAMBase, c.ECAMBuses = 0xfff00000, 2 }},
		{"ECAM misaligned", testBase, 0x10000, func(c *Config) { c.ECAMBase = 0xe0001000 }},
		{"empty window", testBase, 0x10000, func(c *Config) { c.PCIWindowBytes = 0 }},
		{"window beyond 4 GiB", testBase, 0x10000, func(c *Config) { c.PCIWindowBase = 0xf0000000 }},
		{"64-bit window wraps", testBase, 0x10000, func(c *Config) { c.PCIWindow64Base, c.PCIWindow64Bytes = ^uint64(0), 2 }},
		{"SCI 0", testBase, 0x10000, func(c *Config) { c.SCI = 0 }},
		{"RTC 16", testBase, 0x10000, func(c *Config) { c.RTCIRQ = 16 }},
		{"misaligned area", testBase + 8, 0x1000, func(*Config) {}},
		{"area beyond 4 GiB", 0xfffff000, 0x2000, func(*Config) {}},
		{"area too small", testBase, 0x400, func(*Config) {}},
	}
	for _, tt := range tests {
		cfg := testConfig()
		tt.change(&cfg)
		m := &flatMemory{bytes: make([]byte, 0x10000)}
		if _, err := Write(m, tt.at, tt.limit, cfg); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
		if !bytes.Equal(m.bytes, make([]byte, len(m.bytes))) {
			t.Errorf("%s: something was written", tt.name)
		}
	}
	if _, err := Write(&flatMemory{}, testBase, 0x10000, testConfig()); !errors.Is(err, errBeyond) {
		t.Errorf("memory's error is lost: %v", err)
	}
}
