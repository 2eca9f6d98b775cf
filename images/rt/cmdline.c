/* key=value words, split at blanks. A word without '=' has an empty value. */
#include "guest.h"

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\n'; }

bool arg_next(const char **cursor, struct arg *a)
{
	const char *p = *cursor;

	while (blank(*p))
		p++;
	if (!*p)
		return false;
	a->key = p;
	while (*p && *p != '=' && !blank(*p))
		p++;
	a->key_len = (size_t)(p - a->key);
	if (*p == '=')
		p++;
	a->value = p;
	while (*p && !blank(*p))
		p++;
	a->value_len = (size_t)(p - a->value);
	*cursor = p;
	return true;
}

static bool same(const char *s, size_t n, const char *want)
{
	while (n && *want && *s == *want)
		s++, want++, n--;
	return n == 0 && *want == 0;
}

bool arg_item(const char **list, size_t *left, struct arg *a)
{
	*a = (struct arg){.key = *list};
	while (a->key_len < *left && a->key[a->key_len] != ',')
		a->key_len++;
	a->value = a->key + a->key_len;
	if (!a->key_len)
		return false;
	*left -= a->key_len;
	*list += a->key_len;
	if (*left)
		(*left)--, (*list)++;
	return true;
}

bool arg_key(const struct arg *a, const char *key) { return same(a->key, a->key_len, key); }

bool arg_value(const struct arg *a, const char *value) { return same(a->value, a->value_len, value); }

static u32 digit(char c)
{
	if (c >= '0' && c <= '9')
		return (u32)(c - '0');
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? (u32)(c - 'a') + 10 : 99;
}

bool arg_number(const struct arg *a, u64 *out)
{
	const char *p = a->value;
	size_t n = a->value_len;
	u64 base = 10, v = 0;

	if (n > 2 && p[0] == '0' && (p[1] | 0x20) == 'x')
		p += 2, n -= 2, base = 16;
	if (!n)
		return false;
	for (; n; n--, p++) {
		u32 d = digit(*p);

		if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
			return false;
	}
	*out = v;
	return true;
}
