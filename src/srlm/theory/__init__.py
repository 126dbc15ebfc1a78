"""The theory: one function per statement, each with its source.

lower_bound    single-step lower bound in closed form
hard_family    the instances that attain it             adversary    the worst for each n
recursion      one round, the step of kappa, T rounds   compact      its contraction
dimension      covering number, effective dimension     spectrum     which decay it follows
greedy         policies on which greedy decoding misses the mode
"""
