package resident

import "testing"

// TestLastNumber checks that the highest number fits into a slot beside each
// tag, and that the table takes no record beyond it.
func TestLastNumber(t *testing.T) {
	for tag := range uint64(1 << tagBits) {
		k := key{1: tag << (64 - tagBits)}
		for _, n := range []uint32{0, 1, maxNumber - 1, maxNumber} {
			e := k.tag() | (n + 1)
			if e == 0 || numberOf(e) != n || e>>tagShift<<tagShift != k.tag() || uint64(e>>tagShift) != tag {
				t.Fatalf("the slot of record %d with tag %d is %x", n, tag, e)
			}
		}
	}
	table := New(unlimited, forms)
	for _, used := range []uint32{maxNumber, maxNumber + 1} {
		table.records.used = used
		if table.records.spent() != (used > maxNumber) {
			t.Errorf("spent() with %d numbers in use = %t", used, table.records.spent())
		}
	}
	s := &Secret{Digest: digestOf(1)}
	table.Update(func(w Writer) {
		if err := w.Put(s); err != nil {
			t.Fatal(err)
		}
	})
	var f Found
	if a := table.Find(&s.Digest, &f); a != OnDisk {
		t.Errorf("a secret beyond the last number: answer %d, want OnDisk", a)
	}
}
