package events

import (
	"reflect"
	"strings"
	"testing"
)

// FuzzFastDecode compares the fast reader with the general one.
func FuzzFastDecode(f *testing.F) {
	for _, s := range fastSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := decodeFast(b)
		if got == nil {
			return
		}
		want, err := decodeAny(b)
		if err != nil {
			t.Fatalf("the fast reader accepts an invalid event: %v\n%s", err, b)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("it reads\n%+v %+v, and that is\n%+v %+v:\n%s", got, got.Change, want, want.Change, b)
		}
	})
}

const (
	fastHead    = `{"specversion":"1.0","id":"evt_01k5y8z3v0c6q2h4m7n9p1r3t5","source":"/tokenledger/01k5y8z3v0ep0chep0chep0che",`
	fastData    = `"datacontenttype":"application/json","data":{"actor":{"account":"acc_01k5y8z3v00123456789abcdef","token":"tok_01k5y8z3v0actactactactacta","address":"2001:db8::7"},`
	fastSubject = `"subject":"tok_01k5y8z3v0a1b2c3d4e5f6g7h8",`
	seedTime    = `"time":"2026-03-04T05:06:07.891234567Z",`
	secret64    = `0405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223`
)

func fastEvent(kind Kind, change string) string {
	return fastHead + `"type":"` + string(kind) + `",` + seedTime + fastSubject + fastData + `"change":{` + change + `}}}`
}

func fastRests(rests string) string {
	return strings.Replace(fastEvent(KindTokenResumed, ``), `,"change"`, `,"rests":`+rests+`,"change"`, 1)
}

var fastSeeds = []string{
	fastEvent(KindTokenCreated, `"account":"acc_01k5y8z3v00123456789abcdef","app":"a b","device":"é","scopes":["view:site/3","manage_tokens"],"inherit":true,"expires_at":"2027-03-04T05:06:07Z","secret":{"scheme":"sha256","digest":"`+secret64+`","format":"hex32"}`),
	fastEvent(KindTokenCreated, `"account":"acc_01k5y8z3v00123456789abcdef","scopes":[],"secret":{"scheme":"sha256","digest":"`+secret64+`"}`),
	fastEvent(KindTokenScoped, `"scopes":["view:site/3"],"inherit":true`),
	fastEvent(KindTokenScoped, `"scopes":[]`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-03-04T06:06:07.891234567Z"`),
	fastEvent(KindTokenSuspended, ``),
	fastEvent(KindTokenSuspended, `"reason":"x"`),
	fastEvent(KindTokenResumed, ``),
	fastRests(`{"acc_01k5y8z3v00123456789abcdef":7,"policy":0}`),
	fastEvent(KindTokenRevoked, `"reason":"lost <&> \"it\""`),
	fastEvent(KindTokenRevoked, `"reason":"\u0041"`),
	fastEvent(KindTokenRevoked, `"reason":"a","reason":"b"`),
	fastEvent(KindTokenRevoked, `"Reason":"a"`),
	fastRests(`{"policy":1,"acc_01k5y8z3v00123456789abcdef":7}`),
	fastRests(`{"policy":01}`),
	fastRests(`{"policy":1e3}`),
	fastRests(`{"policy":1,"policy":2}`),
	fastEvent(KindTokenScoped, `"scopes":null`),
	fastEvent(KindTokenScoped, `"scopes":["view:site/3",]`),
	fastEvent(KindTokenScoped, `"scopes":["view:site/3"],"edit":{"app":"x"}`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-03-04T06:06:07+01:00"`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-29T06:06:07Z"`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-28T24:00:00Z"`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-28T23:59:60Z"`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"2026-02-28T23:59:59.0Z"`),
	fastEvent(KindTokenRotated, `"secret":{"scheme":"sha256","digest":"`+secret64+`"},"until":"0000-02-29T23:59:59.1Z"`),
}

// TestFastDecode lists the events that the fast reader reads.
func TestFastDecode(t *testing.T) {
	const fast = 10 // number of first seeds that are read, except the one with an escape
	for i, s := range fastSeeds {
		e := decodeFast([]byte(s))
		want, err := decodeAny([]byte(s))
		switch {
		case e != nil && (err != nil || !reflect.DeepEqual(e, want)):
			t.Errorf("%s\nis read as %+v, and is %+v, %v", s, e, want, err)
		case i < fast-1 && e == nil:
			t.Errorf("not read: %s", s)
		case e != nil && i >= fast-1 && i < 23:
			t.Errorf("read by the fast reader: %s", s)
		}
	}
}

func TestFastDecodeAllocates(t *testing.T) {
	b := []byte(fastSeeds[0])
	if n := testing.AllocsPerRun(100, func() { decodeFast(b) }); n > 6 {
		t.Errorf("%v allocations", n)
	}
}
