"""Patch sets at URLs: fetch one, resumed and verified, or upload one."""
