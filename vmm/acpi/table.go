package acpi

import "encoding/binary"

var le = binary.LittleEndian

const (
	headerBytes    = 36
	lengthOffset   = 4
	checksumOffset = 9

	oemID          = "FINELN"
	oemTableID     = "FINELINE"
	creatorID      = "FNLN"
	oemRevision    = 1
	creatorVersion = 1
)

// table puts the common header (ACPI 6.5 §5.2.6) before body.
func table(signature string, revision byte, body []byte) []byte {
	t := append([]byte(signature), 0, 0, 0, 0, revision, 0)
	t = append(t, oemID+oemTableID...)
	t = le.AppendUint32(t, oemRevision)
	t = append(t, creatorID...)
	t = le.AppendUint32(t, creatorVersion)
	t = append(t, body...)
	le.PutUint32(t[lengthOffset:], uint32(len(t)))
	t[checksumOffset] = checksum(t)
	return t
}

// checksum is the byte that makes the sum of p zero; the field itself must be zero in p.
func checksum(p []byte) byte {
	var sum byte
	for _, b := range p {
		sum += b
	}
	return -sum
}

const (
	rsdpBytes            = 36
	rsdpV1Bytes          = 20
	rsdpChecksumOffset   = 8
	rsdpExtendedChecksum = 32
)

// rsdp is §5.2.5.3; the first checksum covers the part that ACPI 1.0 had.
func rsdp(rsdt, xsdt uint32) []byte {
	p := append([]byte("RSD PTR \x00"+oemID), 2)
	p = le.AppendUint32(p, rsdt)
	p = le.AppendUint32(p, rsdpBytes)
	p = le.AppendUint64(p, uint64(xsdt))
	p = append(p, 0, 0, 0, 0)
	p[rsdpChecksumOffset] = checksum(p[:rsdpV1Bytes])
	p[rsdpExtendedChecksum] = checksum(p)
	return p
}

// rsdt is §5.2.7.
func rsdt(tables []uint32) []byte {
	var body []byte
	for _, t := range tables {
		body = le.AppendUint32(body, t)
	}
	return table("RSDT", 1, body)
}

// xsdt is §5.2.8.
func xsdt(tables []uint32) []byte {
	var body []byte
	for _, t := range tables {
		body = le.AppendUint64(body, uint64(t))
	}
	return table("XSDT", 1, body)
}

// mcfg is the PCI firmware specification 3.0, §4.1.2: one allocation, segment 0.
func mcfg(cfg Config) []byte {
	body := make([]byte, 8, 24)
	body = le.AppendUint64(body, uint64(cfg.ECAMBase))
	body = append(body, 0, 0, 0, byte(cfg.ECAMBuses-1))
	body = append(body, 0, 0, 0, 0)
	return table("MCFG", 1, body)
}
