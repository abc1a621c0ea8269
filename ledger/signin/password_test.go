package signin_test

import (
	"strings"
	"testing"

	"github.com/tokenledger/tokenledger/ledger/signin"
)

// TestPasswords checks the rules for passwords on examples.
func TestPasswords(t *testing.T) {
	for _, tt := range []struct {
		password, login string
		refused         string // part of the reason; empty where the password is good
	}{
		{"otter plinth quaver", "anna", ""},
		{"quartz ladle hymn tundra", "anna", ""},
		{"correct horse battery staple", "anna", "common"},
		{"my password is a long sentence", "anna", ""},
		{"xkcd-tells-of-936", "anna", ""},
		{"пароль из многих слов", "anna", ""},
		{"六书为象形指事会意形声转注假借", "anna", ""}, // 15 characters
		{"Vx7$kQ2!pLm9#rTz", "anna", ""},
		{strings.Repeat("wv tk rz gq xn pj! ", 6) + "quxlvbmkzrtpwy", "zz", ""}, // 128 characters

		{"", "anna", "required"},
		{"short", "anna", "has 5 characters"},
		{"fourteen chars", "anna", "has 14 characters"},
		{"六书为象形指事会意形声转注", "anna", "has 13 characters"},
		{strings.Repeat("xq z", 33), "anna", "more than 128"},
		{"a tab\tis not printed", "anna", "cannot be printed"},

		{"password12345678", "anna", "common"},
		{"Passw0rd!Passw0rd!2024", "anna", "common"},
		{"P@$$w0rd-P@$$w0rd", "anna", "common"},
		{"drowssapdrowssap1", "anna", "common"},
		{"qwertyuiopasdfghjkl", "anna", "common"},
		{"lkjhgfdsapoiuytrewq", "anna", "common"},
		{"1qaz2wsx3edc4rfv5tgb", "anna", "common"},
		{"zaq12wsxcde34rfv", "anna", "common"},
		{"iloveyouforever!!!", "anna", "common"},
		{"Summer2024Winter2025", "anna", "common"},
		{"LetMeIn-LetMeIn-1999", "anna", "common"},
		{"monkey dragon tiger", "anna", "common"},
		{"abcdefghijklmnopqrs", "anna", "common"},
		{"01234567890123456", "anna", "common"},
		{"administrator@2031", "anna", "common"},
		{"correcthorsebatterystaple", "anna", "common"},

		{"aaaaaaaaaaaaaaaaaaaa", "anna", "repeats"},
		{"abababababababababab", "anna", "repeats"},
		{"plinth7plinth7plinth7", "anna", "repeats"},

		{"quaver tokenledger otter", "anna", "contains"},
		{"quaver T0kenLedger otter", "anna", "contains"},
		{"the quaver of anna otter", "anna", "contains"},
		{"quaver ANNA.bell plinth", "anna.bell@example.org", "contains"},
		{"quaver 4nna.b3ll plinth", "anna.bell@example.org", "contains"},
		{"quaver al plinth otter", "al", ""},
	} {
		field, why := signin.CheckPassword([]byte(tt.password), tt.login)
		switch {
		case tt.refused == "" && why != "":
			t.Errorf("%q of %s: %s, want it accepted", tt.password, tt.login, why)
		case tt.refused != "" && (!strings.Contains(why, tt.refused) || field != "password"):
			t.Errorf("%q of %s: %q, want an error with %q", tt.password, tt.login, why, tt.refused)
		case tt.password != "" && strings.Contains(why, tt.password):
			t.Errorf("%q: the error repeats the password", tt.password)
		}
	}
	if n := signin.CommonPieces(); n < 2000 {
		t.Errorf("there are %d common pieces, want a few thousand", n)
	}
}

// TestDamagedHash refuses a damaged record without computing a hash.
func TestDamagedHash(t *testing.T) {
	const salt, sum = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for record, ok := range map[string]bool{
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + sum:      true,
		"$argon2i$v=19$m=19456,t=2,p=1$" + salt + "$" + sum:       false,
		"$argon2id$v=16$m=19456,t=2,p=1$" + salt + "$" + sum:      false,
		"$argon2id$v=19$m=4294967295,t=2,p=1$" + salt + "$" + sum: false,
		"$argon2id$v=19$m=19456,t=0,p=1$" + salt + "$" + sum:      false,
		"$argon2id$v=19$m=19456,t=2,p=0$" + salt + "$" + sum:      false,
		"$argon2id$v=19$m=19456,t=99999,p=1$" + salt + "$" + sum:  false,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$":            false,
		"$argon2id$v=19$m=19456,t=2,p=1$$" + sum:                  false,
		"$argon2id$v=19$m=19456,t=2,p=1$" + salt:                  false,
		"":                                                        false,
	} {
		if err := signin.ParsePHC(record); (err == nil) != ok {
			t.Errorf("%q: %v, want accepted %t", record, err, ok)
		}
	}
}
