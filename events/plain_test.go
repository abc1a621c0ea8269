package events

import (
	"reflect"
	"strings"
	"testing"
)

// FuzzPlain compares the reader of plain events with the one of any event.
func FuzzPlain(f *testing.F) {
	for _, s := range plainSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain := decodePlain(b)
		if plain == nil {
			return
		}
		want, err := decodeAny(b)
		if err != nil {
			t.Fatalf("it reads what is no event: %v\n%s", err, b)
		}
		if !reflect.DeepEqual(plain, want) {
			t.Errorf("it reads\n%+v %+v, and that is\n%+v %+v:\n%s", plain, plain.Change, want, want.Change, b)
		}
	})
}

const (
	plainHead = `{"specversion":"1.0","id":"evt_01k5y8z3v0c6q2h4m7n9p1r3t5","source":"/tokenledger/01k5y8z3v0ep0chep0chep0che",`
	plainType = `"datacontenttype":"application/json","data":{"actor":{"account":"acc_01k5y8z3v00123456789abcdef","token":"tok_01k5y8z3v0actactactactacta","address":"2001:db8::7"},`
	plainTok  = `"subject":"tok_01k5y8z3v0a1b2c3d4e5f6g7h8",`
	seedTime  = `"time":"2026-03-04T05:06:07.891234567Z",`
	secret64  = `0405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223`
)

func plainOf(kind Kind, change string) string {
	return plainHead + `"type":"` + string(kind) + `",` + seedTime + plainTok + plainType + `"change":{` + change + `}}}`
}

func plainRests(rests string) string {
	return strings.Replace(plainOf(KindTokenResumed, ``), `,"change"`, `,"rests":`+rests+`,"change"`, 1)
}

var plainSeeds = []string{
	plainOf(KindTokenCreated, `"account":"acc_01k5y8z3v00123456789abcdef","app":"a b","device":"é","scopes":["view:site/3","mint"],"inherit":true,"expires_at":"2027-03-04T05:06:07Z","secret":{"scheme":"sha256","digest":"`+secret64+`","form":"hex32"}`),
	plainOf(KindTokenCreated, `"account":"acc_01k5y8z3v00123456789abcdef","scopes":[],"secret":{"scheme":"sha256","digest":"`+secret64+`"}`),
	plainOf(KindTokenScoped, `"scopes":["view:site/3"],"inherit":true`),
	plainOf(KindTokenScoped, `"scopes":[]`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-03-04T06:06:07.891234567Z"`),
	plainOf(KindTokenSuspended, ``),
	plainOf(KindTokenSuspended, `"reason":"x"`),
	plainOf(KindTokenResumed, ``),
	plainRests(`{"acc_01k5y8z3v00123456789abcdef":7,"policy":0}`),
	plainOf(KindTokenRevoked, `"reason":"lost <&> \"it\""`),
	plainOf(KindTokenRevoked, `"reason":"\u0041"`),
	plainOf(KindTokenRevoked, `"reason":"a","reason":"b"`),
	plainOf(KindTokenRevoked, `"Reason":"a"`),
	plainRests(`{"policy":1,"acc_01k5y8z3v00123456789abcdef":7}`),
	plainRests(`{"policy":01}`),
	plainRests(`{"policy":1e3}`),
	plainRests(`{"policy":1,"policy":2}`),
	plainOf(KindTokenScoped, `"scopes":null`),
	plainOf(KindTokenScoped, `"scopes":["view:site/3",]`),
	plainOf(KindTokenScoped, `"scopes":["view:site/3"],"edit":{"app":"x"}`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-03-04T06:06:07+01:00"`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-29T06:06:07Z"`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-28T24:00:00Z"`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-28T23:59:60Z"`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-28T23:59:59.0Z"`),
	plainOf(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"0000-02-29T23:59:59.1Z"`),
}

// TestPlain says which events are read without the general reader.
func TestPlain(t *testing.T) {
	const plain = 10 // the first ones of the seeds, but the one with an escape
	for i, s := range plainSeeds {
		e := decodePlain([]byte(s))
		want, err := decodeAny([]byte(s))
		switch {
		case e != nil && (err != nil || !reflect.DeepEqual(e, want)):
			t.Errorf("%s\nis read as %+v, and is %+v, %v", s, e, want, err)
		case i < plain-1 && e == nil:
			t.Errorf("not read: %s", s)
		case e != nil && i >= plain-1 && i < 23:
			t.Errorf("read, though not plain: %s", s)
		}
	}
}

func TestPlainAllocates(t *testing.T) {
	b := []byte(plainSeeds[0])
	if n := testing.AllocsPerRun(100, func() { decodePlain(b) }); n > 6 {
		t.Errorf("%v allocations", n)
	}
}
