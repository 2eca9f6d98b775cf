package rtc

import "time"

const hourPM = 1 << 7 // in 12 hour mode

// isTime reports whether reg is one of the date and time registers.
func isTime(reg uint8) bool {
	switch reg {
	case regSeconds, regMinutes, regHours, regWeekday, regDay, regMonth, regYear, CenturyReg:
		return true
	}
	return false
}

// encode writes t to the time registers in m, in the modes of register B.
func (d *Device) encode(m *[memoryBytes]byte, t time.Time) {
	hour := t.Hour()
	var pm uint8
	if d.memory[regB]&b24Hours == 0 {
		if hour >= 12 {
			pm = hourPM
		}
		hour = (hour+11)%12 + 1
	}
	// A guest may set a date whose year does not fit four digits.
	year := (t.Year()%10000 + 10000) % 10000
	m[regSeconds] = d.digits(t.Second())
	m[regMinutes] = d.digits(t.Minute())
	m[regHours] = d.digits(hour) | pm
	m[regWeekday] = d.digits(int(t.Weekday()) + 1) // Sunday is 1
	m[regDay] = d.digits(t.Day())
	m[regMonth] = d.digits(int(t.Month()))
	m[regYear] = d.digits(year % 100)
	m[CenturyReg] = d.digits(year / 100)
}

// decode returns the time in the registers, to the second. The weekday follows
// from the date and is not looked at.
func (d *Device) decode() time.Time {
	hours := d.memory[regHours]
	hour := 0
	if d.memory[regB]&b24Hours != 0 {
		hour = d.number(hours, 0, 23)
	} else {
		hour = d.number(hours&^hourPM, 1, 12) % 12
		if hours&hourPM != 0 {
			hour += 12
		}
	}
	year := d.number(d.memory[CenturyReg], 0, 99)*100 + d.number(d.memory[regYear], 0, 99)
	return time.Date(year, time.Month(d.number(d.memory[regMonth], 1, 12)), d.number(d.memory[regDay], 1, 31),
		hour, d.number(d.memory[regMinutes], 0, 59), d.number(d.memory[regSeconds], 0, 59), 0, time.UTC)
}

// digits writes v (0 to 99) as register B wants it.
func (d *Device) digits(v int) uint8 {
	if d.memory[regB]&bBinary != 0 {
		return uint8(v)
	}
	return uint8(v/10<<4 | v%10)
}

// number reads a register back and counts what no clock would hold.
func (d *Device) number(v uint8, low, high int) int {
	n := int(v)
	if d.memory[regB]&bBinary == 0 {
		if v&0x0f > 9 || v>>4 > 9 {
			d.metrics.InvalidFields++
		}
		n = int(v>>4)*10 + int(v&0x0f)
	}
	if n < low || n > high {
		d.metrics.InvalidFields++
	}
	return n
}

// offset is a difference of times. time.Duration ends at 292 years, and a guest may
// set the year 0.
type offset struct {
	seconds int64
	nanos   int64
}

func offsetOf(a, b time.Time) offset {
	return offset{a.Unix() - b.Unix(), int64(a.Nanosecond() - b.Nanosecond())}
}

func (o offset) add(t time.Time) time.Time {
	return time.Unix(t.Unix()+o.seconds, int64(t.Nanosecond())+o.nanos).UTC()
}
